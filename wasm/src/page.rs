//! The page: one plain [`State`], one [`update`] function, one module that touches the document.
//!
//! Events of the document and news of the session become [`Msg`]s; [`update`] changes the state and returns
//! [`Effect`]s; `view` shows the state; `run` joins the three.

pub mod form;
pub mod history;
pub mod jobs;
#[cfg(test)]
mod markup;
pub mod plain;
pub mod qr;
pub mod settings;
pub mod state;
pub mod telling;
pub mod update;

#[cfg(target_arch = "wasm32")]
mod run;
#[cfg(target_arch = "wasm32")]
mod view;

pub use state::State;
pub use update::{Effect, Msg, update};

#[cfg(target_arch = "wasm32")]
pub use run::{page_open, page_state};
