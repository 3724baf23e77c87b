// The implementation of tidegate.h: included once, by the plugin's main file, after the TIDE_ON_… of its hooks.

#include "tidegate.h"

#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------------------------------
// Memory of one call. It is given back at once when the next call asks for its first piece, since the gateway still
// reads the answer after a hook has returned.
// ---------------------------------------------------------------------------------------------------------------------

#define TIDE_BLOCK 8192

typedef struct tide_large {
  struct tide_large *next;
} tide_large;

static _Alignas(16) uint8_t tide_block[TIDE_BLOCK];
static size_t tide_used;
// What did not fit into the block, each with malloc.
static tide_large *tide_larges;
static bool tide_over;

static void tide_give_back(void) {
  while (tide_larges) {
    tide_large *next = tide_larges->next;
    free(tide_larges);
    tide_larges = next;
  }
  tide_used = 0;
  tide_over = false;
}

void *tide_alloc(size_t size) {
  if (tide_over) tide_give_back();
  if (size > PTRDIFF_MAX - 32) __builtin_trap();
  size = (size + 15) & ~(size_t)15;
  if (size <= TIDE_BLOCK - tide_used) {
    void *found = tide_block + tide_used;
    tide_used += size;
    return found;
  }
  tide_large *large = malloc(16 + size);
  if (!large) __builtin_trap();
  large->next = tide_larges;
  tide_larges = large;
  return (uint8_t *)large + 16;
}

__attribute__((__export_name__("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align,
                                                                    size_t new_size) {
  if (new_size == 0) return (void *)align;
  void *found = tide_alloc(new_size);
  if (old_size) memcpy(found, old, old_size < new_size ? old_size : new_size);
  return found;
}

// What the binding frees is of the call, or static.
#define free(pointer) ((void)(pointer))
#include "bindings/tide.c"
#undef free

// ---------------------------------------------------------------------------------------------------------------------
// Strings, log
// ---------------------------------------------------------------------------------------------------------------------

bool tide_equal(tide_string a, tide_string b) { return a.len == b.len && (a.len == 0 || !memcmp(a.ptr, b.ptr, a.len)); }

tide_string tide_concat_all(const tide_string *parts, size_t count) {
  tide_string whole = {NULL, 0};
  for (size_t i = 0; i < count; i++) whole.len += parts[i].len;
  whole.ptr = tide_alloc(whole.len);
  uint8_t *end = whole.ptr;
  for (size_t i = 0; i < count; i++) {
    if (parts[i].len) memcpy(end, parts[i].ptr, parts[i].len);
    end += parts[i].len;
  }
  return whole;
}

tide_string tide_cut(tide_string *text, char separator) {
  tide_string head = *text;
  uint8_t *found = text->len ? memchr(text->ptr, separator, text->len) : NULL;
  if (!found) {
    *text = (tide_string){head.ptr + head.len, 0};
    return head;
  }
  head.len = (size_t)(found - head.ptr);
  *text = (tide_string){found + 1, text->len - head.len - 1};
  return head;
}

tide_string tide_decimal(uint64_t number) {
  uint8_t *end = (uint8_t *)tide_alloc(20) + 20, *begin = end;
  do *--begin = (uint8_t)('0' + number % 10);
  while (number /= 10);
  return (tide_string){begin, (size_t)(end - begin)};
}

bool tide_parse(tide_string text, uint64_t most, uint64_t *number) {
  *number = 0;
  for (size_t i = 0; i < text.len; i++) {
    unsigned digit = (unsigned)text.ptr[i] - '0';
    if (digit > 9 || digit > most || *number > (most - digit) / 10) return false;
    *number = *number * 10 + digit;
  }
  return text.len > 0;
}

tide_string tide_keep(tide_string text) {
  uint8_t *copy = malloc(text.len ? text.len : 1);
  if (!copy) __builtin_trap();
  if (text.len) memcpy(copy, text.ptr, text.len);
  return (tide_string){copy, text.len};
}

void tide_log_all(tide_log_level_t level, tide_string message, tide_field *fields, size_t count) {
  // The first stands there because C knows no empty array.
  tide_list_tuple2_string_string_t list = {fields + 1, count - 1};
  if (list.len) tide_log_write_fields(level, &message, &list);
  else tide_log_write(level, &message);
}

_Noreturn void tide_panic_at(tide_string why, tide_string file, unsigned line) {
  tide_string told = tide_concat(T("panic at "), file, T(":"), tide_decimal(line), T(": "), why);
  tide_log_write(TIDE_LOG_LEVEL_ERROR, &told);
  __builtin_trap();
}

// ---------------------------------------------------------------------------------------------------------------------
// The generated binding's hooks are the plugin's, and the end of each call.
// ---------------------------------------------------------------------------------------------------------------------

static inline bool tide_end(bool answer) {
  tide_over = true;
  return answer;
}

#ifdef TIDE_ON_INIT
bool exports_tide_on_init_handle(tide_string *error) { return tide_end(on_init(error)); }
#endif

#ifdef TIDE_ON_AUTHENTICATE
bool exports_tide_on_authenticate_handle(tide_session session, tide_decision *decision, tide_string *error) {
  return tide_end(on_authenticate(session, decision, error));
}
#endif

#ifdef TIDE_ON_SESSION
bool exports_tide_on_session_opened(tide_session session, tide_string *error) {
  return tide_end(on_opened(session, error));
}

bool exports_tide_on_session_closed(tide_session session, uint16_t code, tide_string *reason, tide_closer by,
                                    tide_string *error) {
  return tide_end(on_closed(session, code, reason, by, error));
}
#endif

#ifdef TIDE_ON_INBOUND
bool exports_tide_on_inbound_handle(tide_session session, tide_message *message, tide_verdict *verdict,
                                    tide_string *error) {
  return tide_end(on_inbound(session, message, verdict, error));
}
#endif

#ifdef TIDE_ON_PUBLICATION
bool exports_tide_on_publication_handle(tide_publication publication, tide_string *topic, tide_message *message,
                                        tide_verdict *verdict, tide_string *error) {
  return tide_end(on_publication(publication, topic, message, verdict, error));
}
#endif

#ifdef TIDE_ON_BROADCAST
bool exports_tide_on_broadcast_handle(tide_publication publication, tide_string *topic, tide_message *message,
                                      tide_verdict *verdict, tide_string *error) {
  return tide_end(on_broadcast(publication, topic, message, verdict, error));
}
#endif

#ifdef TIDE_ON_OUTBOUND
bool exports_tide_on_outbound_handle(tide_session session, tide_publication *publication, tide_message *message,
                                     tide_verdict *verdict, tide_string *error) {
  return tide_end(on_outbound(session, publication, message, verdict, error));
}
#endif

#ifdef TIDE_ON_SUBSCRIPTION
bool exports_tide_on_subscription_handle(tide_session session, tide_string *topic, tide_subscription_event event,
                                         tide_position *position, tide_string *error) {
  return tide_end(on_subscription(session, topic, event, position, error));
}
#endif

#ifdef TIDE_ON_TIMER
bool exports_tide_on_timer_handle(tide_session session, tide_string *name, tide_string *error) {
  return tide_end(on_timer(session, name, error));
}
#endif

#ifdef TIDE_ON_REPLY
bool exports_tide_on_reply_handle(tide_session session, tide_string *tag, tide_reply *reply, tide_string *error) {
  return tide_end(on_reply(session, tag, reply, error));
}
#endif

#ifdef TIDE_ON_PRESENCE
bool exports_tide_on_presence_handle(tide_string *topic, tide_presence_event event, tide_string *session_id,
                                     tide_string *user, tide_string *info, uint32_t sessions_of_user,
                                     tide_string *error) {
  return tide_end(on_presence(topic, event, session_id, user, info, sessions_of_user, error));
}
#endif
