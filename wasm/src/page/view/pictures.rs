//! The pictures' bytes, which stay with the browser: a blob and its address for each.

use std::collections::BTreeMap;

use js_sys::{Array, Uint8Array};
use web_sys::{Blob, BlobPropertyBag, Url};

/// Blobs by picture id.
#[derive(Default)]
pub struct Pictures(BTreeMap<String, (Blob, String)>);

impl Pictures {
    /// A blob of a picture's file.
    pub fn blob(file: &[u8], mime: &str) -> Option<Blob> {
        let parts = Array::of1(&Uint8Array::from(file));
        let kind = BlobPropertyBag::new();
        kind.set_type(mime);
        Blob::new_with_u8_array_sequence_and_options(&parts, &kind).ok()
    }

    /// Holds a picture until it is dropped.
    pub fn hold(&mut self, id: &str, blob: Blob) {
        if let Ok(url) = Url::create_object_url_with_blob(&blob)
            && let Some((_, old)) = self.0.insert(id.to_owned(), (blob, url))
        {
            let _ = Url::revoke_object_url(&old);
        }
    }

    /// Lets a picture go.
    pub fn drop(&mut self, id: &str) {
        if let Some((_, url)) = self.0.remove(id) {
            let _ = Url::revoke_object_url(&url);
        }
    }

    /// A picture's address in this page.
    pub fn url(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(|(_, url)| url.as_str())
    }

    /// Whether a picture is held.
    pub fn holds(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }
}
