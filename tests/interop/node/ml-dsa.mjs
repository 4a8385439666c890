// Verifies ML-DSA signatures with npm's @noble/post-quantum, an implementation of FIPS 204 that is not ours.
// Each line of standard input is SIZE, public key, message and signature (base64, tabs between); each answer true or false.
import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";

globalThis.crypto ??= webcrypto; // Node 18
const { ml_dsa44, ml_dsa65, ml_dsa87 } = await import("@noble/post-quantum/ml-dsa.js");
const SIZES = { 44: ml_dsa44, 65: ml_dsa65, 87: ml_dsa87 };

for await (const line of createInterface({ input: process.stdin })) {
  const [size, ...fields] = line.split("\t");
  const [key, message, signature] = fields.map((each) => new Uint8Array(Buffer.from(each, "base64")));
  let verdict = false;
  try {
    verdict = SIZES[size].verify(signature, message, key);
  } catch (error) {
    verdict = false; // of a wrong length
  }
  console.log(verdict);
}
