//! The JavaScript API's lower half: a session whose wishes and news are JSON; `manyhands.js` makes them pleasant.

use js_sys::{Function, Uint8Array};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use crate::session::{self, Session};
use crate::words::probe::Probe;
use crate::words::{News, Options, Wish};

/// A session, for scripts.
#[wasm_bindgen(js_name = Session)]
pub struct ApiSession {
    session: Session,
}

/// Joins the room of `link`, or paints alone without one. `options` is [`Options`] as JSON. `tell` is called with [`News`] as JSON
/// and, for pictures, their bytes.
#[wasm_bindgen(js_name = joinSession)]
pub async fn join_session(link: Option<String>, options: String, tell: Function) -> Result<ApiSession, JsError> {
    let options: Options = read(&options, "the options")?;
    let told = move |mut news: News| {
        let bytes = match &mut news {
            News::Painted { png, .. } => Some(std::mem::take(png)),
            News::Preview { rgba, .. } => Some(std::mem::take(rgba)),
            _ => None,
        };
        let bytes = bytes.map_or(JsValue::NULL, |bytes| Uint8Array::from(bytes.as_slice()).into());
        let text = serde_json::to_string(&news).expect("news are plain data");
        // What a listener throws is its own business; the session goes on.
        let _ = tell.call2(&JsValue::NULL, &text.into(), &bytes);
    };
    let session = Session::join(link, options, told).await.map_err(|reason| JsError::new(&reason))?;
    Ok(ApiSession { session })
}

/// The link of a new room at the relay with this web address.
#[wasm_bindgen(js_name = newRoom)]
pub fn new_room(relay: &str) -> Result<String, JsError> {
    session::new_room(relay).map_err(|reason| JsError::new(&reason))
}

#[wasm_bindgen(js_class = Session)]
impl ApiSession {
    /// Hands over a [`Wish`] as JSON.
    pub fn wish(&self, wish: &str) -> Result<(), JsError> {
        self.session.wish(read::<Wish>(wish, "the wish")?);
        Ok(())
    }

    /// Closes all connections at once, for a page that is being closed.
    pub fn farewell(&self) {
        self.session.farewell();
    }

    /// Measures the path to a member: a [`Probe`] as JSON in, [`crate::words::probe::Measured`] as JSON out.
    pub async fn probe(&self, peer: String, probe: String) -> Result<String, JsError> {
        let probe = read::<Probe>(&probe, "the measurement")?;
        let measured = self.session.probe(&peer, probe).await.map_err(|reason| JsError::new(&reason))?;
        Ok(serde_json::to_string(&measured).expect("a measurement is plain data"))
    }

    /// Makes the engine lose its GPU, as a driver's crash would; for tests.
    #[wasm_bindgen(js_name = loseEngine)]
    pub fn lose_engine(&self) {
        self.session.lose_engine();
    }

    /// The room's link, secret included.
    pub fn link(&self) -> Option<String> {
        self.session.link()
    }

    /// The room's public id.
    pub fn room(&self) -> Option<String> {
        self.session.room()
    }

    /// This session's peer id.
    pub fn me(&self) -> String {
        self.session.me()
    }
}

fn read<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, JsError> {
    serde_json::from_str(text).map_err(|error| JsError::new(&format!("{what} cannot be understood: {error}")))
}
