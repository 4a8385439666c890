// Encrypts or decrypts one file with npm's age-encryption (typage), an implementation of age that is not ours:
//   node age.mjs encrypt RECIPIENT IN OUT
//   node age.mjs decrypt IDENTITY-FILE IN OUT
import { readFile, writeFile } from "node:fs/promises";
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto; // Node 18
const { Decrypter, Encrypter } = await import("age-encryption");

const [act, key, input, output] = process.argv.slice(2);
const data = new Uint8Array(await readFile(input));
if (act === "encrypt") {
  const encrypter = new Encrypter();
  encrypter.addRecipient(key);
  await writeFile(output, await encrypter.encrypt(data));
} else {
  const decrypter = new Decrypter();
  for (const line of (await readFile(key, "utf8")).split("\n")) {
    if (line.startsWith("AGE-SECRET-KEY-")) decrypter.addIdentity(line.trim());
  }
  await writeFile(output, await decrypter.decrypt(data));
}
