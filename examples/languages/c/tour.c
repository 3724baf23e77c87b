// A tour of the plugin interface, in C. The folders beside this one have the same plugin in other languages.

#define TIDE_ON_INIT
#define TIDE_ON_AUTHENTICATE
#define TIDE_ON_SESSION
#define TIDE_ON_INBOUND
#define TIDE_ON_TIMER
#include "tidegate.c"

static tide_string greeting;
// The longest message, in bytes.
static uint64_t longest = 200;

bool on_init(tide_string *error) {
  tide_string text;
  greeting = tide_config_get(&T("greeting"), &text) ? tide_keep(text) : T("welcome");
  if (tide_config_get(&T("longest"), &text) && !tide_parse(text, UINT32_MAX, &longest))
    return tide_fail(error, tide_concat(T("longest = `"), text, T("`: not a number of bytes")));
  tide_log(TIDE_LOG_LEVEL_INFO, T("ready"));
  return true;
}

static bool is_name(tide_string name) {
  for (size_t i = 0; i < name.len; i++) {
    uint8_t c = name.ptr[i], lower = c | 0x20;
    if (!((lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')) return false;
  }
  return name.len >= 1 && name.len <= 32;
}

static bool turn_away(tide_session session, tide_decision *decision, uint16_t status, tide_string why) {
  tide_bytes body = {why.ptr, why.len};
  tide_handshake_set_body(session, &T("text/plain"), &body);
  return tide_refuse(decision, status);
}

bool on_authenticate(tide_session session, tide_decision *decision, tide_string *error) {
  tide_string name;
  tide_refusal refusal;
  if (!tide_handshake_query(session, &T("name"), &name))
    return turn_away(session, decision, 401, T("who are you? add ?name=YOU to the address\n"));
  if (!is_name(name)) return turn_away(session, decision, 403, T("a name is 1 to 32 letters, digits, - and _\n"));
  if (!tide_handshake_add_header(session, &T("x-tour-name"), &name, &refusal))
    return tide_fail(error, T("the header was refused"));
  return tide_admit(decision, name);
}

static tide_string user_of(tide_session session) {
  tide_string user;
  return tide_session_user(session, &user) ? user : T("");
}

bool on_opened(tide_session session, tide_string *error) {
  tide_string name = user_of(session);
  tide_log(TIDE_LOG_LEVEL_INFO, T("came"), {T("name"), name});
  tide_send_text(session, tide_concat(greeting, T(", "), name));
  return true;
}

bool on_closed(tide_session session, uint16_t code, tide_string *reason, tide_closer by, tide_string *error) {
  tide_log(TIDE_LOG_LEVEL_INFO, T("went"), {T("code"), tide_decimal(code)});
  return true;
}

// `join TOPIC`: subscribe, seen by the others. The answer comes before the first delivery.
static bool join(tide_session session, tide_string topic, tide_string *error) {
  tide_effect effect;
  tide_refusal refusal;
  if (!tide_session_subscribe(session, &topic, &effect, &refusal)) {
    tide_send_text(session, tide_concat(refusal == TIDE_DENIED ? T("may not join ") : T("cannot join "), topic));
    return true;
  }
  if (!tide_session_with_presence(effect, &T("on tour"), &refusal))
    return tide_fail(error, T("the presence was refused"));
  tide_send_text(session, tide_concat(T("joined "), topic));
  return true;
}

// `leave TOPIC`
static bool leave(tide_session session, tide_string topic) {
  bool subscribed = tide_session_is_subscribed(session, &topic);
  if (subscribed) tide_session_unsubscribe(session, &topic);
  tide_send_text(session, tide_concat(subscribed ? T("left ") : T("not on "), topic));
  return true;
}

// `say TOPIC TEXT`: publish to everyone else. The answer tells the truth: if the publication is refused later, the
// client gets the other one.
static bool say(tide_session session, tide_string rest, tide_string *error) {
  tide_string topic = tide_cut(&rest, ' '), name = user_of(session);
  tide_message message = tide_text(tide_concat(name, T(": "), rest)), otherwise = tide_text(T("not said, try again"));
  tide_effect effect;
  tide_refusal refusal;
  if (!tide_topics_publish(&topic, &message, &effect, &refusal)) {
    tide_send_text(session, tide_concat(refusal == TIDE_DENIED ? T("may not say to ") : T("cannot say to "), topic));
    return true;
  }
  tide_topics_with_exclude(effect, session);
  if (!tide_topics_with_metadata(effect, &T("from"), &name, &refusal))
    return tide_fail(error, T("the metadata were refused"));
  tide_session_send_if_refused(session, &otherwise);
  tide_send_text(session, T("said"));
  return true;
}

static bool topics(tide_session session) {
  tide_strings topics;
  tide_session_topics(session, &topics);
  tide_string told = T("topics: ");
  for (size_t i = 0; i < topics.len; i++) told = tide_concat(told, i ? T(", ") : T(""), topics.ptr[i]);
  tide_send_text(session, told);
  return true;
}

// `count`: an attribute remembers something for one session; the plugin's memory would not.
static bool count(tide_session session, tide_string *error) {
  tide_string text;
  uint64_t count = 0;
  tide_refusal refusal;
  if (tide_session_attribute(session, &T("count"), &text)) tide_parse(text, UINT32_MAX - 1, &count);
  text = tide_decimal(count + 1);
  if (!tide_session_set_attribute(session, &T("count"), &text, &refusal))
    return tide_fail(error, T("the attribute was refused"));
  tide_send_text(session, text);
  return true;
}

// `remind MILLISECONDS TEXT`
static bool remind(tide_session session, tide_string rest, tide_string *error) {
  tide_string after = tide_cut(&rest, ' ');
  uint64_t milliseconds;
  tide_refusal refusal;
  if (!tide_parse(after, UINT32_MAX, &milliseconds)) {
    tide_send_text(session, T("remind MILLISECONDS TEXT"));
    return true;
  }
  if (!tide_session_set_attribute(session, &T("reminder"), &rest, &refusal) ||
      !tide_session_set_timer(session, &T("reminder"), milliseconds, &refusal))
    return tide_fail(error, T("the reminder was refused"));
  tide_send_text(session, T("will remind"));
  return true;
}

static bool answer(tide_session session, tide_string text, tide_string *error) {
  tide_string rest = text, command = tide_cut(&rest, ' ');
  if (tide_equal(command, T("echo"))) return tide_send_text(session, rest), true;
  if (tide_equal(command, T("join"))) return join(session, rest, error);
  if (tide_equal(command, T("leave"))) return leave(session, rest);
  if (tide_equal(command, T("say"))) return say(session, rest, error);
  if (tide_equal(command, T("topics"))) return topics(session);
  if (tide_equal(command, T("count"))) return count(session, error);
  if (tide_equal(command, T("remind"))) return remind(session, rest, error);
  if (tide_equal(command, T("fail"))) {
    tide_send_text(session, T("never sent"));
    return tide_fail(error, T("asked to fail"));
  }
  if (tide_equal(command, T("crash"))) {
    tide_send_text(session, T("never sent"));
    tide_panic("asked to crash");
  }
  tide_send_text(session, tide_concat(T("there is no `"), command,
                                      T("`; try: echo join leave say topics count remind")));
  return true;
}

bool on_inbound(tide_session session, tide_message *message, tide_verdict *verdict, tide_string *error) {
  if (message->tag == TIDE_BINARY) {
    tide_session_close(session, 1003, &T("text only"));
  } else if (message->val.text.len > longest) {
    tide_send_text(session, tide_concat(T("at most "), tide_decimal(longest), T(" bytes")));
  } else if (!answer(session, message->val.text, error)) {
    return false;
  }
  return tide_stop(verdict);
}

bool on_timer(tide_session session, tide_string *name, tide_string *error) {
  tide_string text;
  tide_refusal refusal;
  if (!tide_session_attribute(session, name, &text)) text = T("");
  if (!tide_session_set_attribute(session, name, NULL, &refusal))
    return tide_fail(error, T("the attribute was refused"));
  tide_send_text(session, tide_concat(T("remember: "), text));
  return true;
}
