// Everyone on the route hears what anyone says, louder.

#define TIDE_ON_INIT
#define TIDE_ON_SESSION
#define TIDE_ON_INBOUND
#include "tidegate.c"

static tide_string greeting;

bool on_init(tide_string *error) {
  tide_string text;
  // What shall live as long as the instance is kept; all else is gone when the hook has returned.
  greeting = tide_config_get(&T("greeting"), &text) ? tide_keep(text) : T("welcome");
  return true;
}

bool on_opened(tide_session session, tide_string *error) {
  tide_effect effect;
  tide_refusal refusal;
  if (!tide_session_subscribe(session, &T("square"), &effect, &refusal))
    return tide_fail(error, T("no grant to subscribe to the square"));
  tide_send_text(session, greeting);
  return true;
}

bool on_closed(tide_session session, uint16_t code, tide_string *reason, tide_closer by, tide_string *error) {
  return true;
}

bool on_inbound(tide_session session, tide_message *message, tide_verdict *verdict, tide_string *error) {
  if (message->tag != TIDE_TEXT) {
    tide_session_close(session, 1003, &T("text only"));
    return tide_stop(verdict);
  }
  tide_string text = message->val.text;
  for (size_t i = 0; i < text.len; i++)
    if (text.ptr[i] >= 'a' && text.ptr[i] <= 'z') text.ptr[i] -= 'a' - 'A';
  tide_effect effect;
  tide_refusal refusal;
  if (!tide_topics_publish(&T("square"), message, &effect, &refusal))
    return tide_fail(error, T("no grant to publish on the square"));
  return tide_stop(verdict);
}
