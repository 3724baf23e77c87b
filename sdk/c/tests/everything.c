// All hooks of the interface, and the functions that the tour has no use for. Tests load it; see also the SDKs of the
// other languages, which answer the same.

#define TIDE_ON_INIT
#define TIDE_ON_AUTHENTICATE
#define TIDE_ON_SESSION
#define TIDE_ON_INBOUND
#define TIDE_ON_PUBLICATION
#define TIDE_ON_BROADCAST
#define TIDE_ON_OUTBOUND
#define TIDE_ON_SUBSCRIPTION
#define TIDE_ON_TIMER
#define TIDE_ON_REPLY
#define TIDE_ON_PRESENCE
#include "tidegate.c"

#define TOPIC T("every:1")

bool on_init(tide_string *error) { return true; }

bool on_authenticate(tide_session session, tide_decision *decision, tide_string *error) {
  tide_strings offered;
  tide_refusal refusal;
  tide_handshake_subprotocols(session, &offered);
  if (offered.len && !tide_handshake_select_subprotocol(session, &offered.ptr[0], &refusal))
    return tide_fail(error, T("the subprotocol was refused"));
  return tide_admit(decision, T("ann"));
}

bool on_opened(tide_session session, tide_string *error) {
  tide_effect effect;
  tide_refusal refusal;
  if (!tide_session_subscribe(session, &TOPIC, &effect, &refusal)) return tide_fail(error, T("subscribe"));
  return tide_session_with_presence(effect, &T("here"), &refusal) || tide_fail(error, T("presence"));
}

bool on_closed(tide_session session, uint16_t code, tide_string *reason, tide_closer by, tide_string *error) {
  return true;
}

static void tell(tide_session session, tide_string what, tide_string is) {
  tide_send_text(session, tide_concat(what, T(" = "), is));
}

static tide_string yes(bool is) { return is ? T("yes") : T("no"); }

static tide_string value_of(tide_string key) {
  tide_option_list_u8_t value;
  tide_refusal refusal;
  if (!tide_kv_get(&key, &value, &refusal)) return T("refused");
  return value.is_some ? (tide_string){value.val.ptr, value.val.len} : T("none");
}

static void store(tide_session session) {
  tide_refusal refusal = 0;
  tide_string key = T("key"), number = T("number");
  tide_bytes v = {(uint8_t *)"v", 1}, w = {(uint8_t *)"w", 1};
  int64_t counted = 0;
  bool done = false;
  tell(session, T("missing"), value_of(key));
  tide_kv_set(&key, &v, 0, &refusal);
  tell(session, T("set"), value_of(key));
  tide_kv_increment(&number, 2, 0, &counted, &refusal);
  tide_kv_increment(&number, 40, 0, &counted, &refusal);
  tell(session, T("increment"), tide_decimal((uint64_t)counted));
  tell(session, T("increment of a text"), yes(tide_kv_increment(&key, 1, 0, &counted, &refusal)));
  tide_kv_compare_and_set(&key, NULL, &w, 0, &done, &refusal);
  tell(session, T("exchange of a missing"), yes(done));
  tide_kv_compare_and_set(&key, &v, &w, 0, &done, &refusal);
  tell(session, T("exchange"), yes(done));
  tell(session, T("exchanged"), value_of(key));
  tide_kv_delete(&key, &refusal);
  tide_kv_delete(&number, &refusal);
  tell(session, T("deleted"), value_of(key));
}

static void topic(tide_session session) {
  tide_history_page_t page;
  tide_presence_counts_t counts;
  tide_presence_list_member_t members;
  tide_refusal refusal;
  bool there = false;
  if (tide_history_read(&TOPIC, NULL, 10, &page, &refusal)) {
    tide_string kept = T("");
    for (size_t i = 0; i < page.publications.len; i++) {
      tide_message message;
      tide_publication_content(page.publications.ptr[i], &message);
      kept = tide_concat(kept, i ? T(" ") : T(""), message.val.text);
    }
    tell(session, T("history"), kept);
    tell(session, T("offset"), tide_decimal(page.position.offset));
    tell(session, T("complete"), yes(page.complete));
    tide_position first = {page.position.epoch, 1};
    bool read = tide_history_read(&TOPIC, &first, 10, &page, &refusal);
    tell(session, T("after the first"), tide_decimal(read ? page.publications.len : 0));
    tell(session, T("still complete"), yes(read && page.complete));
  }
  if (tide_presence_count(&TOPIC, &counts, &refusal)) {
    tell(session, T("sessions"), tide_decimal(counts.sessions));
    tell(session, T("users"), tide_decimal(counts.users));
  }
  if (tide_presence_members(&TOPIC, 10, &members, &refusal) && members.len) {
    tide_presence_member_t *member = &members.ptr[0];
    tell(session, T("member"), tide_concat(member->user.val, T(" "), member->info));
  }
  tell(session, T("is there"), yes(tide_presence_has_user(&TOPIC, &T("ann"), &there, &refusal) && there));
}

static void request(tide_session session) {
  tide_string text;
  tide_list_tuple2_string_string_t headers;
  tide_bytes random;
  tide_handshake_method(session, &text);
  tell(session, T("method"), text);
  tide_handshake_path(session, &text);
  tell(session, T("path"), text);
  tell(session, T("parameter"), tide_handshake_parameter(session, &T("room"), &text) ? text : T("none"));
  tide_handshake_raw_query(session, &text);
  tell(session, T("query"), text);
  tell(session, T("header"), tide_handshake_header(session, &T("X-Every"), &text) ? text : T("none"));
  tide_handshake_headers(session, &headers);
  tide_string found = T("none");
  for (size_t i = 0; i < headers.len; i++)
    if (tide_equal(headers.ptr[i].f0, T("x-every"))) found = headers.ptr[i].f1;
  tell(session, T("of all headers"), found);
  tell(session, T("cookie"), tide_handshake_cookie(session, &T("c"), &text) ? text : T("none"));
  tide_session_route(session, &text);
  tell(session, T("route"), text);
  tide_session_transport(session, &text);
  tell(session, T("transport"), text);
  tell(session, T("subprotocol"), tide_session_subprotocol(session, &text) ? text : T("none"));
  tide_random_bytes(5, &random);
  tell(session, T("random"), tide_decimal(random.len));
  tell(session, T("time"), yes(tide_clock_now() > 1600000000000 && tide_clock_monotonic() > 0));
  tide_config_json(&text);
  tell(session, T("config"), text);
  tide_metrics_count(&T("every_total{language=\"c\"}"), 2);
  tide_metrics_gauge(&T("every_gauge"), 0.5);
  tide_metrics_observe(&T("every_seconds"), 0.5);
  tide_message message = tide_text(T("hello"));
  tide_effect effect;
  tide_refusal refusal;
  bool forwarded = tide_upstream_forward(session, &T("nowhere"), &message, &effect, &refusal);
  tell(session, T("forwarded"), yes(forwarded));
}

bool on_inbound(tide_session session, tide_message *message, tide_verdict *verdict, tide_string *error) {
  tide_effect effect;
  tide_refusal refusal;
  if (message->tag == TIDE_BINARY) {
    tide_session_send(session, message);
  } else if (tide_equal(message->val.text, T("store"))) {
    store(session);
  } else if (tide_equal(message->val.text, T("topic"))) {
    topic(session);
  } else if (tide_equal(message->val.text, T("request"))) {
    request(session);
  } else {
    tide_topics_publish(&TOPIC, message, &effect, &refusal);
    tide_topics_with_idempotency_key(effect, &message->val.text, &refusal);
  }
  return tide_stop(verdict);
}

bool on_publication(tide_publication publication, tide_string *topic, tide_message *message, tide_verdict *verdict,
                    tide_string *error) {
  return tide_replace(verdict, tide_text(tide_concat(message->val.text, T("!"))));
}

bool on_broadcast(tide_publication publication, tide_string *topic, tide_message *message, tide_verdict *verdict,
                  tide_string *error) {
  return tide_next(verdict);
}

bool on_outbound(tide_session session, tide_publication *publication, tide_message *message, tide_verdict *verdict,
                 tide_string *error) {
  return tide_next(verdict);
}

bool on_subscription(tide_session session, tide_string *topic, tide_subscription_event event, tide_position *position,
                     tide_string *error) {
  return true;
}

bool on_timer(tide_session session, tide_string *name, tide_string *error) { return true; }

bool on_reply(tide_session session, tide_string *tag, tide_reply *reply, tide_string *error) { return true; }

bool on_presence(tide_string *topic, tide_presence_event event, tide_string *session_id, tide_string *user,
                 tide_string *info, uint32_t sessions_of_user, tide_string *error) {
  return true;
}
