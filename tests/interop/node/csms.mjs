// A CSMS that is not ours: npm's ocpp-rpc server in strict mode (every message in both directions is checked against its
// schema). It tells what happens as JSON lines on standard output and runs until it is killed.
//
//   node csms.mjs --protocol ocpp1.6|ocpp2.0.1|ocpp2.1 --password-file F [--cert F --key F --client-ca F]
//     [--trigger] [--boot accept|callerror|silent] [--sign accept|reject|callerror|silent]
//
// A station comes in with the password, or over TLS with a certificate under --client-ca. --trigger asks for a CSR after
// the boot. CertificateSigned is sent when a line {"chain": PEM, "requestId": N} comes on standard input, any other message
// when a line {"method": NAME, "params": OBJECT} comes: its answer is told as "answered".
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const require = createRequire(import.meta.url);
const { RPCServer, createRPCError, createValidator } = require("ocpp-rpc");

const text = { type: "string" };
const { values: options } = parseArgs({
  options: {
    protocol: text, cert: text, key: text, "client-ca": text, "password-file": text, trigger: { type: "boolean" },
    boot: { type: "string", default: "accept" }, sign: { type: "string", default: "accept" },
  },
});

const tell = (event, details = {}) => process.stdout.write(JSON.stringify({ event, ...details }) + "\n");
const read = (name) => (options[name] === undefined ? undefined : readFileSync(options[name]));
const is16 = options.protocol === "ocpp1.6";
const never = () => new Promise(() => {});
let station;

// ocpp-rpc asks for urn:NAME.req and urn:NAME.conf, but the schemas that it ships for 2.1 are called
// urn:NAMERequest and urn:NAMEResponse: without these renamed copies strict mode fails every call of 2.1.
function validators() {
  if (options.protocol !== "ocpp2.1") return [];
  const schemas = require("ocpp-rpc/lib/schemas/ocpp2_1.json").map((schema) => ({
    ...schema,
    $id: schema.$id.replace(/Request$/, ".req").replace(/Response$/, ".conf"),
  }));
  return [createValidator("ocpp2.1", schemas)];
}

const server = new RPCServer({
  protocols: [options.protocol], strictMode: true, strictModeValidators: validators(), callTimeoutMs: 10_000,
});

server.auth((accept, reject, handshake) => {
  const wanted = read("password-file")?.toString().trim();
  const socket = handshake.request.socket;
  const certificate = socket.authorized ? socket.getPeerCertificate() : undefined;
  const profile = certificate?.subject ? 3 : socket.encrypted ? 2 : 1;
  tell("arrived", { identity: handshake.identity, profile, subject: certificate?.subject ?? null });
  if (profile < 3 && handshake.password?.toString() !== wanted) return reject(401, "authentication failed");
  accept({});
});

const answers = {
  BootNotification: () => ({ status: "Accepted", currentTime: new Date().toISOString(), interval: 300 }),
  Heartbeat: () => ({ currentTime: new Date().toISOString() }),
  StatusNotification: () => ({}),
  SecurityEventNotification: () => ({}),
  Authorize: (params) =>
    "idTag" in params
      ? { idTagInfo: { status: "Accepted" } }
      : { idTokenInfo: { status: "Accepted" }, certificateStatus: "Accepted" },
  GetCertificateStatus: () => ({ status: "Failed" }),
  DataTransfer: ({ messageId }) => ({
    status: "Accepted",
    data: JSON.stringify(
      messageId === "Authorize"
        ? { idTokenInfo: { status: "Accepted" }, certificateStatus: "Accepted" }
        : { status: "Failed" },
    ),
  }),
  SignCertificate: () => ({ status: options.sign === "reject" ? "Rejected" : "Accepted" }),
};

async function trigger() {
  const [method, wanted] = is16
    ? ["ExtendedTriggerMessage", "SignChargePointCertificate"]
    : ["TriggerMessage", "SignChargingStationCertificate"];
  const answer = await station.call(method, { requestedMessage: wanted });
  tell("triggered", { status: answer.status });
}

async function deliver({ chain, requestId }) {
  const payload = { certificateChain: chain };
  if (!is16) payload.certificateType = "ChargingStationCertificate";
  if (requestId !== undefined) payload.requestId = requestId;
  const answer = await station.call("CertificateSigned", payload);
  tell("delivered", { status: answer.status });
}

async function ask({ method, params }) {
  tell("answered", { method, payload: await station.call(method, params) });
}

server.on("client", (client) => {
  station = client;
  client.handle(({ method, params }) => {
    tell("received", { method, params });
    const mode = { BootNotification: options.boot, SignCertificate: options.sign }[method] ?? "accept";
    if (mode === "silent") return never();
    if (mode === "callerror" || !(method in answers)) throw createRPCError("InternalError", "no");
    if (method === "BootNotification" && options.trigger) setTimeout(() => trigger().catch(failed), 20);
    return answers[method](params);
  });
  client.on("strictValidationFailure", ({ error, method, outbound }) => {
    tell("invalid", { method, outbound, error: error.message, details: error.details?.errors });
  });
  client.on("close", ({ code, reason }) => tell("closed", { code, reason: String(reason ?? "") }));
});

const failed = (error) => tell("failed", { error: error.message, code: error.rpcErrorCode ?? error.code });
createInterface({ input: process.stdin }).on("line", (line) => {
  const wanted = JSON.parse(line);
  ("method" in wanted ? ask(wanted) : deliver(wanted)).catch(failed);
});

const secure = options.cert !== undefined;
const http = secure
  ? createTlsServer({
      cert: read("cert"), key: read("key"), ca: read("client-ca"),
      requestCert: true, rejectUnauthorized: false, // one port for profiles 2 and 3
    })
  : createServer();
http.on("upgrade", server.handleUpgrade);
http.listen(0, "127.0.0.1", () => tell("listening", { port: http.address().port }));
