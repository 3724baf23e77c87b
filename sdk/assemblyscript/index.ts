// Everything that a plugin uses. The hooks are functions that its main file exports; see the README.
import * as clock from "./assembly/clock";
import * as config from "./assembly/config";
import * as history from "./assembly/history";
import * as hooks from "./assembly/hooks";
import * as kv from "./assembly/kv";
import * as log from "./assembly/log";
import * as metrics from "./assembly/metrics";
import * as presence from "./assembly/presence";
import * as random from "./assembly/random";
import * as sessions from "./assembly/sessions";
import * as topics from "./assembly/topics";
import * as upstream from "./assembly/upstream";
import * as users from "./assembly/users";

export { abort, cabi_realloc } from "./assembly/abi";
export { Publication } from "./assembly/publication";
export { CertificateFacts, Keep, Session, Subscribed } from "./assembly/session";
export { Accepted, Closer, Decision, Field, Message, Position, Refusal, Verdict } from "./assembly/types";
export { clock, config, history, hooks, kv, log, metrics, presence, random, sessions, topics, upstream, users };
