// Google's npm client in the service of the tests: a call in a line of JSON, its answer in another.
//
// Messages come and go in protobuf's own encoding: what a test asserts is what the client understood of the wire.
"use strict";

const readline = require("node:readline");
const tasks = require("@google-cloud/tasks");
const {grpc} = require("google-gax");
const {PassThroughClient} = require("google-auth-library");

const clients = new Map();

function clientFor({version, transport, address}) {
  const key = [version, transport, address].join(" ");
  if (!clients.has(key)) {
    const [servicePath, port] = address.split(":");
    const options =
      transport === "grpc"
        ? {servicePath, port: Number(port), sslCreds: grpc.credentials.createInsecure()}
        : {servicePath, port: Number(port), protocol: "http", fallback: "rest", authClient: new PassThroughClient()};
    clients.set(key, new tasks[version].CloudTasksClient(options));
  }
  return clients.get(key);
}

function typeNamed(name) {
  return name.split(".").reduce((place, part) => place[part], tasks.protos);
}

function decoded({type, message}) {
  const kind = typeNamed(type);
  return kind.toObject(kind.decode(Buffer.from(message, "base64")));
}

function encoded(type, object) {
  const kind = typeNamed(type);
  return Buffer.from(kind.encode(kind.fromObject(object)).finish()).toString("base64");
}

async function answer(call) {
  const client = clientFor(call);
  const [found] = await client[call.method](decoded(call.request));
  const told = call.answer === "google.longrunning.Operation" ? (found.latestResponse ?? found) : found;
  return Array.isArray(told) ? told.map(each => encoded(call.answer, each)) : encoded(call.answer, told);
}

readline.createInterface({input: process.stdin}).on("line", async line => {
  const call = JSON.parse(line);
  let told;
  try {
    told = {answer: await answer(call)};
  } catch (error) {
    // Over gRPC the message has the code in front of it, and the details are the message.
    const message = typeof error.details === "string" ? error.details : error.message;
    told = {error: {code: error.code ?? null, message, trace: error.stack}};
  }
  process.stdout.write(JSON.stringify({...told, id: call.id}) + "\n");
});
