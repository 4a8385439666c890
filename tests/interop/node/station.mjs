// A charging station that is not ours: npm's ocpp-rpc in strict mode (every message in both directions is checked
// against its schema). It tells what happens as JSON lines on standard output and ends with 0 when it got as far as
// --until says, with 1 when it was refused or cut off before.
//
//   node station.mjs --url wss://HOST:PORT/ocpp --id ID --protocol ocpp1.6|ocpp2.0.1|ocpp2.1
//     --until booted|certificate|closed [--serial S] [--password-file F] [--trust F] [--cert F --key F]
//     [--csr F] [--csr-key F] [--out F] [--ask] [--answers F] [--timeout SECONDS]
//
// --answers is JSON: by method the answers to give in turn, the last one again and again; "values" are its variables.
// --csr is sent when the CSMS triggers it, or at once with --ask; --csr-key is the key that the answer must certify.
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const require = createRequire(import.meta.url);
const { RPCClient, createRPCError, createValidator } = require("ocpp-rpc");

const text = { type: "string" };
const { values: options } = parseArgs({
  options: {
    url: text, id: text, protocol: text, until: text, serial: text, "password-file": text, trust: text, cert: text,
    key: text, csr: text, "csr-key": text, out: text, ask: { type: "boolean" }, answers: text, timeout: { type: "string", default: "30" },
  },
});

const tell = (event, details = {}) => process.stdout.write(JSON.stringify({ event, ...details }) + "\n");
const read = (name) => (options[name] === undefined ? undefined : readFileSync(options[name]));
const is16 = options.protocol === "ocpp1.6";
let ended = false;
let connected = false;

function end(code) {
  if (ended) return;
  ended = true;
  client.close({ code: 1000 }).catch(() => {}).finally(() => process.exit(code));
}

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

const client = new RPCClient({
  endpoint: options.url,
  identity: options.id,
  password: read("password-file") ?? null,
  protocols: [options.protocol],
  strictMode: true,
  strictModeValidators: validators(),
  reconnect: false,
  callTimeoutMs: 15_000,
  wsOpts: { ca: read("trust"), cert: read("cert"), key: read("key"), perMessageDeflate: false },
});

async function boot() {
  const identity = { serial: options.serial ?? options.id, vendor: "Example", model: "Interop" };
  const payload = is16
    ? { chargePointVendor: identity.vendor, chargePointModel: identity.model, chargePointSerialNumber: identity.serial }
    : {
        reason: "PowerUp",
        chargingStation: { vendorName: identity.vendor, model: identity.model, serialNumber: identity.serial },
      };
  const answer = await client.call("BootNotification", payload);
  tell("booted", { status: answer.status });
  if (options.until === "booted") end(answer.status === "Accepted" ? 0 : 1);
}

async function sign() {
  const payload = { csr: read("csr").toString("utf8") };
  if (!is16) payload.certificateType = "ChargingStationCertificate";
  if (options.protocol === "ocpp2.1") payload.requestId = 4711;
  const answer = await client.call("SignCertificate", payload);
  tell("asked", { status: answer.status, statusInfo: answer.statusInfo });
  if (answer.status !== "Accepted" && options.until === "certificate") end(1);
}

function trigger({ params }) {
  tell("triggered", { requested: params.requestedMessage });
  const wanted = is16 ? "SignChargePointCertificate" : "SignChargingStationCertificate";
  if (params.requestedMessage !== wanted || options.csr === undefined) return { status: "NotImplemented" };
  // The answer goes out first: a station makes its key pair after it (A02.FR.02).
  setTimeout(() => sign().catch(failed), 20);
  return { status: "Accepted" };
}

function verdict(chain) {
  const blocks = chain.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) return "no certificate in the chain";
  const certificates = blocks.map((block) => new X509Certificate(block));
  const key = read("csr-key");
  if (key && !certificates[0].checkPrivateKey(createPrivateKey(key))) return "the leaf is not first, or has another key";
  for (let position = 1; position < certificates.length; position++) {
    const [subject, issuer] = [certificates[position - 1], certificates[position]];
    if (!subject.verify(issuer.publicKey)) return `certificate ${position} did not sign certificate ${position - 1}`;
    if (issuer.verify(issuer.publicKey)) return "the chain contains its root";
  }
  return "";
}

function received({ params }) {
  const problem = verdict(params.certificateChain);
  tell("certificate", { problem, type: params.certificateType, requestId: params.requestId });
  if (problem === "" && options.out) writeFileSync(options.out, params.certificateChain);
  if (options.until === "certificate") setTimeout(() => end(problem === "" ? 0 : 1), 50);
  return { status: problem === "" ? "Accepted" : "Rejected" };
}

function failed(error) {
  tell("failed", { error: error.message, code: error.rpcErrorCode ?? error.code });
  end(1);
}

client.handle("TriggerMessage", trigger);
if (is16) client.handle("ExtendedTriggerMessage", trigger);
client.handle("CertificateSigned", received);
const answers = options.answers === undefined ? {} : JSON.parse(readFileSync(options.answers, "utf8"));
const values = answers.values ?? {};
const settings = {
  GetVariables: ({ getVariableData }) => ({
    getVariableResult: getVariableData.map(({ component, variable }) => {
      const value = values[variable.name];
      const attribute = value === undefined ? { attributeStatus: "UnknownVariable" } : { attributeStatus: "Accepted", attributeValue: value };
      return { component, variable, ...attribute };
    }),
  }),
  SetVariables: ({ setVariableData }) => ({
    setVariableResult: setVariableData.map(({ component, variable }) => ({ component, variable, attributeStatus: "Accepted" })),
  }),
  GetConfiguration: ({ key = [] }) => ({ configurationKey: [], unknownKey: key }),
};
client.handle(({ method, params }) => {
  const given = answers[method];
  if (given !== undefined || (options.answers !== undefined && method in settings)) {
    tell("called", { method, params });
    return given === undefined ? settings[method](params) : given.length > 1 ? given.shift() : given[0];
  }
  tell("unexpected", { method });
  throw createRPCError("NotImplemented");
});
client.on("close", ({ code, reason }) => {
  if (!connected) return; // refused before the upgrade: connect() says how
  tell("closed", { code, reason: String(reason ?? "") });
  if (!ended) process.exit(options.until === "closed" ? 0 : 1);
});
// Schema violations of the peer, found by strict mode.
client.on("strictValidationFailure", ({ error, method, outbound }) => {
  tell("invalid", { method, outbound, error: error.message, details: error.details?.errors });
});

setTimeout(() => {
  tell("timeout");
  process.exit(1);
}, Number(options.timeout) * 1000).unref();

try {
  await client.connect();
} catch (error) {
  tell("refused", { status: error.upgrade?.status ?? error.code, error: error.message });
  process.exit(1);
}
connected = true;
tell("connected", { protocol: client.protocol });
boot()
  .then(() => (options.ask ? sign() : undefined))
  .catch(failed);
