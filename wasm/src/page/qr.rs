//! Draws a room link as a QR code: one path of unit squares.

use std::fmt::Write;

use qrcodegen::{QrCode, QrCodeEcc};

/// Light squares around the code; the standard asks for four.
const QUIET: i32 = 4;

/// A drawn code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Side of the drawing, quiet zone included.
    pub side: u32,
    /// Path data in SVG's words: one horizontal bar per run of dark squares.
    pub path: String,
}

/// The code of `text`, or `None` where it is too long for one (2331 bytes at this correction level).
pub fn code(text: &str) -> Option<Code> {
    let qr = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let size = qr.size();
    let mut path = String::new();
    for y in 0..size {
        let mut x = 0;
        while x < size {
            let length = (x..size).take_while(|&x| qr.get_module(x, y)).count() as i32;
            if length > 0 {
                let (left, top) = (x + QUIET, y + QUIET);
                write!(path, "M{left} {top}h{length}v1h-{length}z").expect("writing to a string cannot fail");
            }
            x += length.max(1);
        }
    }
    Some(Code { side: (size + 2 * QUIET) as u32, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_cover_exactly_the_dark_squares() {
        let text = "http://127.0.0.1:8080/#abcdefghijklmnopqrstuvwxyz";
        let qr = QrCode::encode_text(text, QrCodeEcc::Medium).unwrap();
        let code = code(text).unwrap();
        assert_eq!(code.side, qr.size() as u32 + 8);
        let dark =
            (0..qr.size()).flat_map(|y| (0..qr.size()).map(move |x| (x, y))).filter(|&(x, y)| qr.get_module(x, y));
        let drawn: i32 =
            code.path.split('M').skip(1).map(|bar| bar.split(['h', 'v']).nth(1).unwrap().parse::<i32>().unwrap()).sum();
        assert_eq!(drawn, dark.count() as i32);
        assert!(code.path.starts_with("M4 4h7v1h-7z"), "the corner mark begins with seven dark squares");
    }

    #[test]
    fn a_text_that_fits_no_code_gives_none() {
        assert_eq!(code(&"x".repeat(5000)), None);
    }
}
