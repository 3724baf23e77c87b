// Conveniences for plugins in C, on top of the generated binding of the interface (bindings/tide.h).
//
// A plugin's main file names its hooks, includes the implementation and writes the hooks:
//
//     #define TIDE_ON_INBOUND
//     #include "tidegate.c"
//
//     bool on_inbound(tide_session session, tide_message *message, tide_verdict *verdict, tide_string *error) {
//         tide_session_send(session, message);
//         return tide_stop(verdict);
//     }
//
// Memory: strings and lists that the gateway hands over, and what the functions below make, live until the hook has
// returned and its answer was read. Nothing of it is freed by hand, and the generated `…_free` functions do nothing.
// What shall live longer is copied by `tide_keep`. Strings have a length and no zero at the end.

#ifndef TIDEGATE_H
#define TIDEGATE_H

#include "bindings/tide.h"

typedef tide_string_t tide_string;
typedef tide_list_u8_t tide_bytes;
typedef tide_list_string_t tide_strings;
typedef tide_tuple2_string_string_t tide_field;
typedef tide_types_session_t tide_session;
typedef tide_types_publication_t tide_publication;
typedef tide_types_effect_t tide_effect;
typedef tide_types_message_t tide_message;
typedef tide_types_verdict_t tide_verdict;
typedef tide_types_position_t tide_position;
typedef tide_types_refusal_t tide_refusal;
typedef exports_tide_on_authenticate_decision_t tide_decision;
typedef exports_tide_on_session_closer_t tide_closer;
typedef exports_tide_on_subscription_event_t tide_subscription_event;
typedef exports_tide_on_presence_event_t tide_presence_event;
typedef exports_tide_on_reply_result_response_failure_t tide_reply;

// Shorter names of what is compared most.
#define TIDE_TEXT TIDE_TYPES_MESSAGE_TEXT
#define TIDE_BINARY TIDE_TYPES_MESSAGE_BINARY
#define TIDE_DENIED TIDE_TYPES_REFUSAL_DENIED
#define TIDE_UNAVAILABLE TIDE_TYPES_REFUSAL_UNAVAILABLE

// ---------------------------------------------------------------------------------------------------------------------
// The hooks, of which a plugin writes those that it names by TIDE_ON_…. False is an error, with a sentence for the log
// (`tide_fail`); `bindings/tide.h` and ../wit/tidegate.wit say more about each.
// ---------------------------------------------------------------------------------------------------------------------

// TIDE_ON_INIT
bool on_init(tide_string *error);
// TIDE_ON_AUTHENTICATE
bool on_authenticate(tide_session session, tide_decision *decision, tide_string *error);
// TIDE_ON_SESSION
bool on_opened(tide_session session, tide_string *error);
bool on_closed(tide_session session, uint16_t code, tide_string *reason, tide_closer by, tide_string *error);
// TIDE_ON_INBOUND
bool on_inbound(tide_session session, tide_message *message, tide_verdict *verdict, tide_string *error);
// TIDE_ON_PUBLICATION
bool on_publication(tide_publication publication, tide_string *topic, tide_message *message, tide_verdict *verdict,
                    tide_string *error);
// TIDE_ON_BROADCAST
bool on_broadcast(tide_publication publication, tide_string *topic, tide_message *message, tide_verdict *verdict,
                  tide_string *error);
// TIDE_ON_OUTBOUND; `publication` is NULL for a direct send
bool on_outbound(tide_session session, tide_publication *publication, tide_message *message, tide_verdict *verdict,
                 tide_string *error);
// TIDE_ON_SUBSCRIPTION; `position` is NULL where the topic keeps no history
bool on_subscription(tide_session session, tide_string *topic, tide_subscription_event event, tide_position *position,
                     tide_string *error);
// TIDE_ON_TIMER
bool on_timer(tide_session session, tide_string *name, tide_string *error);
// TIDE_ON_REPLY
bool on_reply(tide_session session, tide_string *tag, tide_reply *reply, tide_string *error);
// TIDE_ON_PRESENCE; `user` is NULL for a session without one
bool on_presence(tide_string *topic, tide_presence_event event, tide_string *session_id, tide_string *user,
                 tide_string *info, uint32_t sessions_of_user, tide_string *error);

// ---------------------------------------------------------------------------------------------------------------------
// Answers of hooks: `return tide_stop(verdict);`
// ---------------------------------------------------------------------------------------------------------------------

static inline bool tide_next(tide_verdict *verdict) {
  verdict->tag = TIDE_TYPES_VERDICT_NEXT;
  return true;
}

static inline bool tide_stop(tide_verdict *verdict) {
  verdict->tag = TIDE_TYPES_VERDICT_STOP;
  return true;
}

static inline bool tide_replace(tide_verdict *verdict, tide_message message) {
  verdict->tag = TIDE_TYPES_VERDICT_REPLACE;
  verdict->val.replace = message;
  return true;
}

static inline bool tide_pass(tide_decision *decision) {
  decision->tag = EXPORTS_TIDE_ON_AUTHENTICATE_DECISION_PASS;
  return true;
}

static inline bool tide_refuse(tide_decision *decision, uint16_t status) {
  decision->tag = EXPORTS_TIDE_ON_AUTHENTICATE_DECISION_REFUSE;
  decision->val.refuse = status;
  return true;
}

static inline bool tide_admit(tide_decision *decision, tide_string user) {
  decision->tag = EXPORTS_TIDE_ON_AUTHENTICATE_DECISION_ADMIT;
  decision->val.admit.is_some = true;
  decision->val.admit.val = user;
  return true;
}

static inline bool tide_admit_anonymous(tide_decision *decision) {
  decision->tag = EXPORTS_TIDE_ON_AUTHENTICATE_DECISION_ADMIT;
  decision->val.admit.is_some = false;
  return true;
}

static inline bool tide_fail(tide_string *error, tide_string why) {
  *error = why;
  return false;
}

// ---------------------------------------------------------------------------------------------------------------------
// Strings
// ---------------------------------------------------------------------------------------------------------------------

// A literal as a string. `&T("name")` is what the generated functions take.
#define T(literal) ((tide_string){(uint8_t *)(literal), sizeof(literal) - 1})

bool tide_equal(tide_string a, tide_string b);

// Strings one after the other: `tide_concat(T("hello, "), name)`.
#define tide_concat(...) \
  tide_concat_all((tide_string[]){__VA_ARGS__}, sizeof((tide_string[]){__VA_ARGS__}) / sizeof(tide_string))
tide_string tide_concat_all(const tide_string *parts, size_t count);

// The part before the first `separator`; `text` becomes what comes after it, or empty.
tide_string tide_cut(tide_string *text, char separator);

// A number in decimal digits.
tide_string tide_decimal(uint64_t number);

// Reads one: digits only, up to `most`.
bool tide_parse(tide_string text, uint64_t most, uint64_t *number);

// Until the hook's end. Never NULL: an instance that has no memory left traps, and is replaced.
void *tide_alloc(size_t size);

// A copy that lives as long as the instance.
tide_string tide_keep(tide_string text);

// ---------------------------------------------------------------------------------------------------------------------
// Messages
// ---------------------------------------------------------------------------------------------------------------------

static inline tide_message tide_text(tide_string text) {
  return (tide_message){.tag = TIDE_TEXT, .val.text = text};
}

static inline tide_message tide_binary(tide_bytes bytes) {
  return (tide_message){.tag = TIDE_BINARY, .val.binary = bytes};
}

// Effect: a text to this client.
static inline tide_effect tide_send_text(tide_session session, tide_string text) {
  tide_message message = tide_text(text);
  return tide_session_send(session, &message);
}

// ---------------------------------------------------------------------------------------------------------------------
// Log
// ---------------------------------------------------------------------------------------------------------------------

// `tide_log(TIDE_LOG_LEVEL_INFO, T("came"), {T("name"), name})`, with as many fields as there are.
#define tide_log(level, message, ...)                                                         \
  tide_log_all(level, message, (tide_field[]){{T(""), T("")}, ##__VA_ARGS__}, \
               sizeof((tide_field[]){{T(""), T("")}, ##__VA_ARGS__}) / sizeof(tide_field))
void tide_log_all(tide_log_level_t level, tide_string message, tide_field *fields, size_t count);

// For what must never be: logs an error and traps. The event fails, and the instance is replaced.
#define tide_panic(why) tide_panic_at(T(why), T(__FILE_NAME__), __LINE__)
_Noreturn void tide_panic_at(tide_string why, tide_string file, unsigned line);

#endif
