//! Values of named fields in texts: in JSON at any depth, in JSON within its strings, and in what only looks like it. All that
//! is not replaced stays as it was, to the space.

use serde_json::Value;

use crate::plugin::script::REDACTED;

/// JSON in strings of JSON, how deep.
const NESTED: usize = 3;

/// A text with other values for the fields that `is_secret` names; `found` hears of them. None: there is none.
pub fn replaced(text: &str, is_secret: &dyn Fn(&str) -> bool, found: &mut dyn FnMut(&str, &str)) -> Option<String> {
    at_depth(text, 0, is_secret, found)
}

fn at_depth(
    text: &str,
    depth: usize,
    is_secret: &dyn Fn(&str) -> bool,
    found: &mut dyn FnMut(&str, &str),
) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut new, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(start) = bytes[at..].iter().position(|byte| *byte == b'"').map(|found| at + found) {
        let end = string_end(bytes, start);
        at = end;
        let after = skip_space(bytes, end);
        let is_key = bytes.get(after) == Some(&b':');
        let string = unquoted(&text[start..end]);
        if is_key && is_secret(&string) {
            let begin = skip_space(bytes, after + 1);
            let end = value_end(bytes, begin);
            let value = &text[begin..end];
            if value != "null" && !value.is_empty() {
                found(&string, &unquoted(value));
                new.push_str(&text[copied..begin]);
                new.push_str(&format!("\"{REDACTED}\""));
                copied = end;
            }
            at = end;
        } else if !is_key
            && depth < NESTED
            && string.contains('"')
            && let Some(inner) = at_depth(&string, depth + 1, is_secret, found)
        {
            new.push_str(&text[copied..start]);
            new.push_str(&Value::String(inner).to_string());
            copied = end;
        }
    }
    (copied > 0).then(|| new + &text[copied..])
}

/// A string of JSON without its quotes and escapes; anything else as it is.
fn unquoted(token: &str) -> String {
    serde_json::from_str::<String>(token).unwrap_or_else(|_| token.trim_matches('"').to_owned())
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    at + bytes[at.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Behind the closing quote of the string that begins at `start`, or at the end.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Behind the value that begins at `start`: a string, an object or a list with all that is in it, or a word.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' if depth == 0 => return at,
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    fn replaced(text: &str) -> String {
        let names = ["token", "password", "secret"];
        let new = super::replaced(text, &|name| names.contains(&&*name.to_ascii_lowercase()), &mut |_, _| {});
        new.unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn values_are_replaced_where_they_stand_and_the_rest_stays() {
        let cases = [
            (r#"{"b":1, "token" : "hunter22", "a":2.50}"#, r#"{"b":1, "token" : "REDACTED", "a":2.50}"#),
            (r#"{"login":{"deep":[{"passWord":12345}]}}"#, r#"{"login":{"deep":[{"passWord":"REDACTED"}]}}"#),
            (r#"{"secret":{"a":["}"],"b":"\"]"},"x":1}"#, r#"{"secret":"REDACTED","x":1}"#),
            (r#"{"token":"a\"b","x":1}"#, r#"{"token":"REDACTED","x":1}"#),
            (r#"{"\u0074oken":"abcdef"}"#, r#"{"\u0074oken":"REDACTED"}"#),
            (r#"42["login",{"password":"hunter22"}]"#, r#"42["login",{"password":"REDACTED"}]"#),
            (r#"{"password":"hunter22"#, r#"{"password":"REDACTED""#),
            (r#"{"inner":"{\"password\":\"hunter22\"}"}"#, r#"{"inner":"{\"password\":\"REDACTED\"}"}"#),
            (r#"{"token":null,"say":"token"}"#, r#"{"token":null,"say":"token"}"#),
            (r#"{"text":"no \"token\" here"}"#, r#"{"text":"no \"token\" here"}"#),
            ("token: plain", "token: plain"),
        ];
        for (text, expected) in cases {
            assert_eq!(replaced(text), expected, "{text}");
            assert_eq!(replaced(expected), expected, "twice is once");
        }
        for text in ["\"", "{\"token\":", "{\"token\"", "\"\\", "{\"token\":\"\\", "\u{2603}\"\u{2603}\":\u{2603}"] {
            replaced(text);
        }
    }
}
