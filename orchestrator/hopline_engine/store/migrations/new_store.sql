CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0014');
CREATE TABLE approval (
	task_id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	node INTEGER NOT NULL, 
	item INTEGER NOT NULL, 
	prompt TEXT NOT NULL, 
	asked_at DOUBLE NOT NULL, 
	expires_at DOUBLE, 
	approved BOOLEAN, 
	person TEXT, 
	decided_at DOUBLE, 
	recipients BLOB NOT NULL, 
	form BLOB, 
	CONSTRAINT pk_approval PRIMARY KEY (task_id)
);
CREATE TABLE attempt (
	run_id INTEGER NOT NULL, 
	node INTEGER NOT NULL, 
	item INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	status INTEGER, 
	started_at DOUBLE NOT NULL, 
	ended_at DOUBLE NOT NULL, 
	error BLOB, 
	logs TEXT, 
	CONSTRAINT pk_attempt PRIMARY KEY (run_id, node, item, attempt), 
	CONSTRAINT ck_attempt_state CHECK (state = 'succeeded' OR state = 'failed' OR state = 'timed_out' OR state = 'lost' OR state = 'cancelled'), 
	CONSTRAINT ck_attempt_attempt CHECK (attempt >= 1)
);
CREATE TABLE cloud_attempt (
	task_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	queue TEXT NOT NULL, 
	name TEXT NOT NULL, 
	dispatch_time DOUBLE NOT NULL, 
	end_time DOUBLE NOT NULL, 
	status INTEGER, 
	code INTEGER NOT NULL, 
	message TEXT NOT NULL, 
	response_head TEXT NOT NULL, 
	CONSTRAINT pk_cloud_attempt PRIMARY KEY (task_id, number)
);
CREATE TABLE cloud_operation (
	name TEXT NOT NULL, 
	create_time DOUBLE NOT NULL, 
	body BLOB NOT NULL, 
	CONSTRAINT pk_cloud_operation PRIMARY KEY (name)
);
CREATE TABLE cloud_queue (
	"key" TEXT NOT NULL, 
	parent TEXT NOT NULL, 
	is_pull BOOLEAN NOT NULL, 
	is_shared BOOLEAN NOT NULL, 
	purge_time DOUBLE, 
	create_time DOUBLE NOT NULL, 
	config BLOB NOT NULL, 
	policy BLOB, 
	CONSTRAINT pk_cloud_queue PRIMARY KEY ("key")
);
CREATE TABLE cloud_task (
	id INTEGER NOT NULL, 
	queue TEXT NOT NULL, 
	name TEXT NOT NULL, 
	is_named BOOLEAN NOT NULL, 
	stage INTEGER NOT NULL, 
	schedule_time DOUBLE NOT NULL, 
	create_time DOUBLE NOT NULL, 
	expire_time DOUBLE NOT NULL, 
	dispatch_deadline DOUBLE, 
	dispatch_count INTEGER NOT NULL, 
	response_count INTEGER NOT NULL, 
	execution_count INTEGER NOT NULL, 
	lost_count INTEGER NOT NULL, 
	first_dispatch_time DOUBLE, 
	last_schedule_time DOUBLE, 
	last_dispatch_time DOUBLE, 
	last_response_time DOUBLE, 
	last_code INTEGER, 
	last_message TEXT, 
	previous_response INTEGER, 
	retry_reason TEXT NOT NULL, 
	node TEXT, 
	tag TEXT, 
	request BLOB NOT NULL, 
	body BLOB NOT NULL, 
	CONSTRAINT pk_cloud_task PRIMARY KEY (id), 
	CONSTRAINT ck_cloud_task_stage CHECK (stage BETWEEN 0 AND 2)
);
CREATE TABLE cloud_tombstone (
	queue TEXT NOT NULL, 
	name TEXT NOT NULL, 
	until DOUBLE NOT NULL, 
	CONSTRAINT pk_cloud_tombstone PRIMARY KEY (queue, name)
);
CREATE TABLE definition (
	digest TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	body BLOB NOT NULL, 
	CONSTRAINT pk_definition PRIMARY KEY (digest)
);
CREATE TABLE event (
	name TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	emitted_at DOUBLE NOT NULL, 
	payload BLOB NOT NULL, 
	CONSTRAINT pk_event PRIMARY KEY (name, "key")
);
CREATE TABLE key_claim (
	task_id INTEGER NOT NULL, 
	queue TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	key_limit INTEGER NOT NULL, 
	since DOUBLE NOT NULL, 
	is_held BOOLEAN NOT NULL, 
	words TEXT NOT NULL, 
	CONSTRAINT pk_key_claim PRIMARY KEY (task_id)
);
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_meta PRIMARY KEY ("key")
);
CREATE TABLE node (
	id TEXT NOT NULL, 
	epoch INTEGER NOT NULL, 
	url TEXT, 
	started_at DOUBLE NOT NULL, 
	heartbeat_at DOUBLE NOT NULL, committed INTEGER DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_node PRIMARY KEY (id)
);
CREATE TABLE parked_run (
	run_id INTEGER NOT NULL, 
	wake_at DOUBLE, 
	CONSTRAINT pk_parked_run PRIMARY KEY (run_id)
);
CREATE TABLE queue (
	name TEXT NOT NULL, 
	state TEXT NOT NULL, 
	max_dispatches_per_second DOUBLE, 
	max_burst_size INTEGER, 
	max_concurrent_dispatches INTEGER, 
	tokens DOUBLE NOT NULL, 
	tokens_at DOUBLE NOT NULL, 
	CONSTRAINT pk_queue PRIMARY KEY (name), 
	CONSTRAINT ck_queue_state CHECK (state = 'running' OR state = 'paused'), 
	CONSTRAINT ck_queue_rate CHECK (max_dispatches_per_second > 0), 
	CONSTRAINT ck_queue_burst CHECK (max_burst_size >= 1), 
	CONSTRAINT ck_queue_concurrency CHECK (max_concurrent_dispatches >= 1)
);
CREATE TABLE queue_share (
	queue TEXT NOT NULL, 
	node TEXT NOT NULL, 
	slots INTEGER NOT NULL, 
	wanted INTEGER NOT NULL, 
	CONSTRAINT pk_queue_share PRIMARY KEY (queue, node), 
	CONSTRAINT ck_queue_share_slots CHECK (slots >= 0), 
	CONSTRAINT fk_queue_share_queue FOREIGN KEY(queue) REFERENCES queue (name) ON DELETE CASCADE, 
	CONSTRAINT fk_queue_share_node FOREIGN KEY(node) REFERENCES node (id) ON DELETE CASCADE
);
CREATE TABLE run (
	id INTEGER NOT NULL, 
	public_id TEXT NOT NULL, 
	workflow TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	state TEXT NOT NULL, 
	idempotency_key TEXT, 
	parent_id INTEGER, 
	parent_node INTEGER, 
	parent_item INTEGER, 
	retry_of INTEGER, 
	created_at DOUBLE NOT NULL, 
	ended_at DOUBLE, 
	input BLOB NOT NULL, 
	result BLOB, 
	error BLOB, fork_of INTEGER, paused_at DOUBLE, ending TEXT, priority INTEGER DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_run PRIMARY KEY (id), 
	CONSTRAINT ck_run_state CHECK (state = 'running' OR state = 'succeeded' OR state = 'failed' OR state = 'cancelled'), 
	CONSTRAINT ck_run_ended CHECK ((state = 'running') = (ended_at IS NULL)), 
	CONSTRAINT uq_run_public_id UNIQUE (public_id), 
	CONSTRAINT fk_run_digest FOREIGN KEY(digest) REFERENCES definition (digest)
);
CREATE TABLE schedule (
	name TEXT NOT NULL, 
	shard INTEGER NOT NULL, 
	workflow TEXT NOT NULL, 
	is_edited BOOLEAN NOT NULL, 
	is_paused BOOLEAN NOT NULL, 
	revision INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	anchor_at DOUBLE NOT NULL, 
	next_tick DOUBLE, 
	due_at DOUBLE, 
	spec BLOB NOT NULL, 
	declared BLOB, 
	input BLOB NOT NULL, 
	backfill BLOB, 
	CONSTRAINT pk_schedule PRIMARY KEY (name)
);
CREATE TABLE schedule_version (
	schedule TEXT NOT NULL, 
	since DOUBLE NOT NULL, 
	spec BLOB NOT NULL, 
	CONSTRAINT pk_schedule_version PRIMARY KEY (schedule, since)
);
CREATE TABLE secret (
	name TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	sealed BLOB NOT NULL, 
	CONSTRAINT pk_secret PRIMARY KEY (name)
);
CREATE TABLE shard (
	id INTEGER NOT NULL, 
	node TEXT, 
	CONSTRAINT pk_shard PRIMARY KEY (id), 
	CONSTRAINT fk_shard_node FOREIGN KEY(node) REFERENCES node (id) ON DELETE SET NULL
);
INSERT INTO "shard" VALUES(0,NULL);
INSERT INTO "shard" VALUES(1,NULL);
INSERT INTO "shard" VALUES(2,NULL);
INSERT INTO "shard" VALUES(3,NULL);
INSERT INTO "shard" VALUES(4,NULL);
INSERT INTO "shard" VALUES(5,NULL);
INSERT INTO "shard" VALUES(6,NULL);
INSERT INTO "shard" VALUES(7,NULL);
INSERT INTO "shard" VALUES(8,NULL);
INSERT INTO "shard" VALUES(9,NULL);
INSERT INTO "shard" VALUES(10,NULL);
INSERT INTO "shard" VALUES(11,NULL);
INSERT INTO "shard" VALUES(12,NULL);
INSERT INTO "shard" VALUES(13,NULL);
INSERT INTO "shard" VALUES(14,NULL);
INSERT INTO "shard" VALUES(15,NULL);
INSERT INTO "shard" VALUES(16,NULL);
INSERT INTO "shard" VALUES(17,NULL);
INSERT INTO "shard" VALUES(18,NULL);
INSERT INTO "shard" VALUES(19,NULL);
INSERT INTO "shard" VALUES(20,NULL);
INSERT INTO "shard" VALUES(21,NULL);
INSERT INTO "shard" VALUES(22,NULL);
INSERT INTO "shard" VALUES(23,NULL);
INSERT INTO "shard" VALUES(24,NULL);
INSERT INTO "shard" VALUES(25,NULL);
INSERT INTO "shard" VALUES(26,NULL);
INSERT INTO "shard" VALUES(27,NULL);
INSERT INTO "shard" VALUES(28,NULL);
INSERT INTO "shard" VALUES(29,NULL);
INSERT INTO "shard" VALUES(30,NULL);
INSERT INTO "shard" VALUES(31,NULL);
INSERT INTO "shard" VALUES(32,NULL);
INSERT INTO "shard" VALUES(33,NULL);
INSERT INTO "shard" VALUES(34,NULL);
INSERT INTO "shard" VALUES(35,NULL);
INSERT INTO "shard" VALUES(36,NULL);
INSERT INTO "shard" VALUES(37,NULL);
INSERT INTO "shard" VALUES(38,NULL);
INSERT INTO "shard" VALUES(39,NULL);
INSERT INTO "shard" VALUES(40,NULL);
INSERT INTO "shard" VALUES(41,NULL);
INSERT INTO "shard" VALUES(42,NULL);
INSERT INTO "shard" VALUES(43,NULL);
INSERT INTO "shard" VALUES(44,NULL);
INSERT INTO "shard" VALUES(45,NULL);
INSERT INTO "shard" VALUES(46,NULL);
INSERT INTO "shard" VALUES(47,NULL);
INSERT INTO "shard" VALUES(48,NULL);
INSERT INTO "shard" VALUES(49,NULL);
INSERT INTO "shard" VALUES(50,NULL);
INSERT INTO "shard" VALUES(51,NULL);
INSERT INTO "shard" VALUES(52,NULL);
INSERT INTO "shard" VALUES(53,NULL);
INSERT INTO "shard" VALUES(54,NULL);
INSERT INTO "shard" VALUES(55,NULL);
INSERT INTO "shard" VALUES(56,NULL);
INSERT INTO "shard" VALUES(57,NULL);
INSERT INTO "shard" VALUES(58,NULL);
INSERT INTO "shard" VALUES(59,NULL);
INSERT INTO "shard" VALUES(60,NULL);
INSERT INTO "shard" VALUES(61,NULL);
INSERT INTO "shard" VALUES(62,NULL);
INSERT INTO "shard" VALUES(63,NULL);
CREATE TABLE step_run (
	run_id INTEGER NOT NULL, 
	node INTEGER NOT NULL, 
	item INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	started_at DOUBLE, 
	ended_at DOUBLE NOT NULL, 
	error BLOB, 
	result BLOB, 
	CONSTRAINT pk_step_run PRIMARY KEY (run_id, node, item), 
	CONSTRAINT ck_step_run_state CHECK (state = 'succeeded' OR state = 'failed' OR state = 'skipped' OR state = 'upstream_failed' OR state = 'cancelled')
);
CREATE TABLE "task" (
	id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	node INTEGER NOT NULL, 
	item INTEGER NOT NULL, 
	queue TEXT NOT NULL, 
	state INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	lost INTEGER NOT NULL, 
	schedule_time DOUBLE NOT NULL, 
	deadline_time DOUBLE, 
	first_attempt_at DOUBLE, 
	leased_at DOUBLE, 
	epoch INTEGER NOT NULL, 
	blamed INTEGER DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_task PRIMARY KEY (id), 
	CONSTRAINT ck_task_state CHECK (state BETWEEN 0 AND 3)
);
CREATE TABLE tick (
	schedule TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	state INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	decided_at DOUBLE NOT NULL, 
	started_at DOUBLE, 
	run_id INTEGER, 
	reason TEXT, 
	CONSTRAINT pk_tick PRIMARY KEY (schedule, at), 
	CONSTRAINT ck_tick_state CHECK (state BETWEEN 0 AND 7)
);
CREATE TABLE wait (
	task_id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	CONSTRAINT pk_wait PRIMARY KEY (task_id)
);
CREATE TABLE workflow (
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	CONSTRAINT pk_workflow PRIMARY KEY (name), 
	CONSTRAINT fk_workflow_digest FOREIGN KEY(digest) REFERENCES definition (digest)
);
CREATE UNIQUE INDEX run_key ON run (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX run_children ON run (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX run_live ON run (id) WHERE state = 'running';
CREATE INDEX run_listed ON run (created_at, id) WHERE parent_id IS NULL;
CREATE INDEX run_listed_by_workflow ON run (workflow, created_at, id) WHERE parent_id IS NULL;
CREATE INDEX run_failed ON run (created_at, id) WHERE parent_id IS NULL AND state = 'failed';
CREATE TRIGGER run_is_final BEFORE UPDATE ON run WHEN OLD.state <> 'running' BEGIN SELECT RAISE(ABORT, 'the run has ended'); END;
CREATE TRIGGER step_run_is_final BEFORE UPDATE ON step_run BEGIN SELECT RAISE(ABORT, 'the step has ended'); END;
CREATE TRIGGER attempt_is_final BEFORE UPDATE ON attempt BEGIN SELECT RAISE(ABORT, 'the attempt has ended'); END;
CREATE INDEX cloud_queue_listed ON cloud_queue (parent, "key");
CREATE UNIQUE INDEX cloud_task_name ON cloud_task (queue, name) WHERE stage < 2;
CREATE INDEX cloud_task_due ON cloud_task (queue, schedule_time, id) WHERE stage = 0;
CREATE INDEX cloud_task_dispatched ON cloud_task (node) WHERE stage = 1;
CREATE INDEX cloud_task_dead ON cloud_task (queue, id) WHERE stage = 2;
CREATE INDEX cloud_task_expires ON cloud_task (expire_time);
CREATE INDEX cloud_attempt_listed ON cloud_attempt (queue, name, dispatch_time);
CREATE INDEX cloud_attempt_ended ON cloud_attempt (end_time);
CREATE INDEX cloud_tombstone_until ON cloud_tombstone (until);
CREATE INDEX cloud_operation_made ON cloud_operation (create_time);
CREATE INDEX schedule_due ON schedule (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tick_open ON tick (state, schedule, at) WHERE state < 4;
CREATE UNIQUE INDEX task_step ON task (run_id, node, item);
CREATE INDEX task_due ON task (queue, schedule_time) WHERE state = 0;
CREATE INDEX wait_for ON wait (name, "key");
CREATE INDEX event_emitted ON event (emitted_at);
CREATE INDEX run_retries ON run (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX approval_step ON approval (run_id, node, item);
CREATE INDEX approval_asked ON approval (asked_at);
CREATE INDEX parked_run_wake ON parked_run (wake_at);
CREATE INDEX tick_passed ON tick (decided_at) WHERE state > 4;
CREATE INDEX key_claim_key ON key_claim (queue, "key");
CREATE INDEX step_run_referring ON step_run (run_id) WHERE instr(result, x'01') > 0;
CREATE INDEX run_input_referring ON run (id) WHERE instr(input, x'01') > 0;
CREATE INDEX run_result_referring ON run (id) WHERE instr(result, x'01') > 0;
