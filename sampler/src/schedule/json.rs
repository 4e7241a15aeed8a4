//! JSON as Python writes it: with the bare words `Infinity`, `-Infinity` and `NaN`, which JSON does not know.

use serde_json::Value;

/// Parses `text`, turning each of Python's bare words into a string of the same letters.
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(&quoted(text))
}

fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| rest.starts_with(word));
        let taken = match word {
            Some(word) => {
                result.extend(["\"", word, "\""]);
                word.len()
            }
            None if rest.starts_with('"') => {
                let length = string_length(rest);
                result.push_str(&rest[..length]);
                length
            }
            None => {
                let length = rest.chars().next().map_or(0, char::len_utf8);
                result.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[taken..];
    }
    result
}

/// Bytes of the string literal that `text` begins with, up to the end of `text` if it is not closed.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_words_become_strings_and_strings_stay() {
        let value = parse(r#"{"a": -Infinity, "b": [Infinity, NaN], "NaN": "a \"Infinity\" é"}"#).unwrap();
        assert_eq!(value["a"], "-Infinity");
        assert_eq!(value["b"], serde_json::json!(["Infinity", "NaN"]));
        assert_eq!(value["NaN"], "a \"Infinity\" é");
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["", "{", "\"", "\"\\", "Infinit", "{NaN: 1", "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
