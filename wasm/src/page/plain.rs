//! Makes text from others harmless to look at: nothing invisible, nothing that turns the line around, nothing endless.
//!
//! Markup needs no care here, because the view only ever sets text.

/// Marks on one letter; Vietnamese and Hebrew need three, more is a tower.
const MARKS_MAX: usize = 4;

/// `text` on one line: control, direction and invisible characters become spaces or vanish, stacked marks are cut, and
/// more than `characters_max` characters end in an ellipsis. Everything else stays as it is, markup included.
pub fn plain(text: &str, characters_max: usize) -> String {
    lines(text, characters_max, |_| ' ')
}

/// The same, keeping line breaks: for explanations of several lines.
pub fn plain_lines(text: &str, characters_max: usize) -> String {
    lines(text, characters_max, |character| if character == '\n' { '\n' } else { ' ' })
}

fn lines(text: &str, characters_max: usize, space: impl Fn(char) -> char) -> String {
    let mut shown = String::new();
    let (mut count, mut marks) = (0, 0);
    for character in text.trim().chars() {
        if is_invisible(character) {
            continue;
        }
        marks = if is_mark(character) { marks + 1 } else { 0 };
        if marks > MARKS_MAX {
            continue;
        }
        if count == characters_max {
            shown.push('…');
            break;
        }
        let blank = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
        shown.push(if blank { space(character) } else { character });
        count += 1;
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// Direction overrides and isolates, zero-width spaces, interlinear and tag characters. The two joiners stay: emoji and
/// several scripts are written with them.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn is_mark(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_stays_text() {
        for text in
            ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "javascript:alert(1)", "{{7*7}}"]
        {
            assert_eq!(plain(text, 100), text);
        }
    }

    #[test]
    fn nothing_turns_the_line_around_or_hides() {
        assert_eq!(plain("a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{e0041}f", 100), "abcdef");
        assert_eq!(plain("a\x1b[2Jb\0c\u{9b}d", 100), "a [2Jb c d");
        assert_eq!(plain("one\ntwo\u{2028}three", 100), "one two three");
        assert_eq!(plain_lines("one\ntwo\u{2028}three\r", 100), "one\ntwo three");
    }

    #[test]
    fn scripts_and_emoji_survive() {
        for text in ["Zürich – 夜", "Việt Nam", "क्षि", "👩‍👩‍👧", "שלום", "می‌خواهم"]
        {
            assert_eq!(plain(text, 100), text);
        }
    }

    #[test]
    fn long_texts_and_towers_of_marks_end() {
        assert_eq!(plain(&"x".repeat(1_000_000), 5), "xxxxx…");
        assert_eq!(plain("12345", 5), "12345");
        let tower = format!("a{}b", "\u{301}".repeat(500));
        assert_eq!(plain(&tower, 100).chars().count(), 2 + MARKS_MAX);
    }
}
