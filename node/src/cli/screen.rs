//! What a person sees while a command runs: a bar on a terminal, lines elsewhere, JSON for scripts.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// A bar if standard error is a terminal, lines otherwise.
    Auto,
    /// Lines on standard error.
    Plain,
    /// One JSON object a line on standard output.
    Json,
}

/// The screen of one command.
pub struct Screen {
    style: Style,
    bar: ProgressBar,
}

impl Screen {
    /// An empty screen.
    pub fn new(style: Style) -> Self {
        let style = match style {
            Style::Auto if !std::io::stderr().is_terminal() => Style::Plain,
            other => other,
        };
        Self { style, bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()) }
    }

    /// Shows a line for good, and in JSON an event of this name.
    pub fn say(&self, event: &str, text: &str) {
        self.tell(event, text, json!({}));
    }

    /// Like [`Screen::say`], with more fields for scripts.
    pub fn tell(&self, event: &str, text: &str, mut fields: Value) {
        match self.style {
            Style::Auto => self.bar.suspend(|| eprintln!("{text}")),
            Style::Plain => eprintln!("{text}"),
            Style::Json => {
                fields["event"] = event.into();
                fields["text"] = text.into();
                print_line(&fields);
            }
        }
    }

    /// Begins a bar; [`Screen::set_total`] says of how many parts.
    pub fn begin_bar(&mut self) {
        if self.style != Style::Auto {
            return;
        }
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {elapsed}<{eta}  {msg}")
            .expect("the template is well-formed");
        self.bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style);
    }

    /// The bar's parts in all.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Begins a spinner, for work without an end.
    pub fn begin_spinner(&mut self) {
        if self.style != Style::Auto {
            return;
        }
        self.bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// Moves the bar; `fields` go to scripts.
    pub fn progress(&self, event: &str, done: u64, text: String, mut fields: Value) {
        match self.style {
            Style::Auto => {
                self.bar.set_position(done);
                self.bar.set_message(text);
            }
            Style::Plain => {}
            Style::Json => {
                fields["event"] = event.into();
                print_line(&fields);
            }
        }
    }

    /// Takes the bar away.
    pub fn end_bar(&self) {
        self.bar.finish_and_clear();
    }
}

/// One line on standard output. Whoever read it may be gone, which is no reason to stop working.
fn print_line(fields: &Value) {
    let _ = writeln!(std::io::stdout(), "{fields}");
}

/// Text from strangers without control characters, so that a name cannot move the cursor or forge a line.
pub fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(super::plain("a\x1b[2Jb\nc\u{9b}d"), "a[2Jbcd");
    }
}
