// Checks tokens.json against a second implementation of the token encoding and of BLAKE3.
//
// `.ci/vectors` runs it; by hand:
//   npm install --no-save @noble/hashes && node crosscheck.mjs
// It shares no code with the engine.
import { readFileSync } from "node:fs";
import { blake3 } from "@noble/hashes/blake3.js";

const MAC_CONTEXT = "adjutant 2026-11-21 captoken v1 mac";
const ROLES = { operator: 1, worker: 2, observer: 3, senior: 4 };

const utf8 = (text) => Buffer.from(text, "utf8");
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const be32 = (number) => { const out = Buffer.alloc(4); out.writeUInt32BE(number); return out; };
const be64 = (number) => { const out = Buffer.alloc(8); out.writeBigUInt64BE(BigInt(number)); return out; };
const sized = (bytes) => Buffer.concat([be32(bytes.length), bytes]);
const field = (tag, bytes) => Buffer.concat([Buffer.of(tag), sized(bytes)]);

export function macKey(kid, root) {
  return blake3(Buffer.concat([be32(kid), be64(root.length), root]), { context: utf8(MAC_CONTEXT) });
}

export function macInput(kid, token) {
  return Buffer.concat([
    utf8("captoken/v1/base\0"),
    be32(kid),
    field(1, utf8(token.agent_id)),
    field(2, Buffer.of(ROLES[token.role])),
    Buffer.of(3),
    be32(token.scopes.length),
    ...token.scopes.map((scope) => sized(utf8(scope))),
    field(4, be64(token.issued_at)),
    field(5, be64(token.expire_at)),
    field(6, token.max_uses === null ? Buffer.alloc(0) : be32(token.max_uses)),
    field(7, utf8(token.nonce)),
  ]);
}

export function tag(kid, root, token) {
  return hex(blake3(macInput(kid, token), { key: macKey(kid, root) }));
}

export function digest(kid, token) {
  const fields = macInput(kid, token).subarray(21);
  return hex(blake3(Buffer.concat([utf8("captoken/v1/record\0"), fields])));
}

export function fingerprint(token) {
  return hex(blake3(utf8("captoken/v1/fingerprint\0" + token.nonce))).slice(0, 32);
}

// The times stand as texts in the file, because a JavaScript number cannot hold every one.
export function bearer(token, sig) {
  const text = (value) => JSON.stringify(value);
  const json = `{"agent_id":${text(token.agent_id)},"role":${text(token.role)},` +
    `"scopes":${text(token.scopes)},"issued_at":${token.issued_at},"expire_at":${token.expire_at},` +
    `"max_uses":${token.max_uses},"nonce":${text(token.nonce)},"sig_hex":${text(sig)}}`;
  return utf8(json).toString("base64url");
}

function check(file) {
  const wrong = [];
  const same = (name, what, actual, expected) => {
    if (actual !== expected) wrong.push(`${name}: ${what} is ${actual}, the file has ${expected}`);
  };
  for (const entry of file.tokens) {
    const { name, kid, token } = entry;
    const root = Buffer.from(file.roots[kid], "hex");
    const sig = tag(kid, root, token);
    same(name, "input", hex(macInput(kid, token)), entry.input);
    same(name, "tag", sig, entry.tag);
    same(name, "digest", digest(kid, token), entry.digest);
    same(name, "fingerprint", fingerprint(token), entry.fingerprint);
    same(name, "bearer", bearer(token, sig), entry.bearer);
  }
  const official = file.blake3_keyed;
  for (const { input_len, keyed_hash } of official.cases) {
    const input = Uint8Array.from({ length: input_len }, (_, at) => at % 251);
    same(`official ${input_len}`, "hash", hex(blake3(input, { key: utf8(official.key) })), keyed_hash);
  }
  return wrong;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const file = JSON.parse(readFileSync(new URL("tokens.json", import.meta.url), "utf8"));
  const wrong = check(file);
  for (const line of wrong) console.error(line);
  console.log(`${file.tokens.length} tokens, ${wrong.length} differences`);
  process.exitCode = wrong.length === 0 ? 0 : 1;
}
