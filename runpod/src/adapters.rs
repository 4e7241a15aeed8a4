//! What different workers are given and give back, from and to the queue's own words.

mod foreign;
mod input;
mod output;
mod workflow;

use std::fmt;

pub use self::foreign::{Asked, Painted, from_input, to_output};
pub use self::input::{Extras, InitImage, InputError, to_input};
pub use self::output::{Mime, OutputError, Picture, read_output, read_seed};
pub use self::workflow::{Workflow, WorkflowError};

/// Which worker an endpoint runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `manyhands serve`: its input is an order as it is.
    Manyhands,
    /// `worker-sdxl`.
    Sdxl,
    /// `worker-comfyui`, with a stored workflow.
    ComfyUi,
    /// `worker-a1111`.
    A1111,
}

impl Dialect {
    /// As configurations write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manyhands => "manyhands",
            Self::Sdxl => "sdxl",
            Self::ComfyUi => "comfyui",
            Self::A1111 => "a1111",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
