// Conveniences for plugins in JavaScript: what the values of the interface look like (tidegate.d.ts), by name.

/** A text message. */
export const text = (val) => ({ tag: "text", val });

/** A message of bytes. */
export const binary = (val) => ({ tag: "binary", val });

/** Verdict: the next plugin of the chain sees the message unchanged. */
export const next = { tag: "next" };

/** Verdict: it goes no further, and that is no error. */
export const stop = { tag: "stop" };

/** Verdict: the next plugin of the chain sees this message in its place. */
export const replace = (message) => ({ tag: "replace", val: message });

/** Decision: leave it to the next plugin of the chain. */
export const pass = { tag: "pass" };

/** Decision: let the client in, as this user or (null) as nobody in particular. */
export const admit = (user) => ({ tag: "admit", val: user ?? null });

/** Decision: answer with this HTTP status. */
export const refuse = (status) => ({ tag: "refuse", val: status });

/** Why the gateway did not accept a request: "denied", "invalid", …; anything else that was thrown is thrown again. */
export function refusal(error) {
  if (error instanceof Error && typeof error.payload === "string") return error.payload;
  throw error;
}

/** A text's bytes. QuickJS has no TextEncoder. */
export function utf8(text) {
  const escaped = encodeURIComponent(text.toWellFormed?.() ?? text);
  return Uint8Array.from(escaped.match(/%..|[^%]/g) ?? [], (part) =>
    part[0] === "%" ? parseInt(part.slice(1), 16) : part.charCodeAt(0),
  );
}
