// The first example of the tutorial for Node; only how the client is made differs.
"use strict";

const {CloudTasksClient} = require("@google-cloud/tasks");
const {grpc} = require("google-gax");

const [servicePath, port] = process.env.CLOUD_TASKS_GRPC.split(":");
const client = new CloudTasksClient({
  servicePath,
  port: Number(port),
  sslCreds: grpc.credentials.createInsecure(),
});

async function createHttpTask() {
  const project = "my-project-id";
  const queue = "in-node";
  const location = "us-central1";
  const url = process.env.HANDLER_URL;
  const payload = "Hello, World!";

  await client.createQueue({
    parent: client.locationPath(project, location),
    queue: {name: client.queuePath(project, location, queue)},
  });

  const parent = client.queuePath(project, location, queue);
  const task = {
    httpRequest: {
      headers: {"Content-Type": "text/plain"},
      httpMethod: "POST",
      url,
      body: Buffer.from(payload).toString("base64"),
    },
  };
  const [response] = await client.createTask({parent, task});
  console.log(`Created task ${response.name}`);
}

createHttpTask();
