//! How the trace says what a message says.

use std::fmt;

use protocol::{Message, ToRequester, ToWorker, Work};

use crate::sim::trace::digest;

/// A message and its body, in a line.
pub struct Words<'a>(pub &'a Message, pub &'a [u8]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = format_args!("{}B #{:08x}", self.1.len(), digest(self.1));
        match self.0 {
            Message::ToWorker(message) => match message {
                ToWorker::Store { blob } => write!(line, "Store {blob:?} {body}"),
                ToWorker::Assign { lease, unit } => {
                    let (stage, index) = (unit.id.stage, unit.id.index);
                    write!(line, "Assign {lease}: {} {stage}.{index} of {} {body}", kind(&unit.work), unit.job)
                }
                ToWorker::Cancel { lease } => write!(line, "Cancel {lease}"),
                ToWorker::Probe { lease } => write!(line, "Probe {lease}"),
                ToWorker::Release { job } => write!(line, "Release {job}"),
            },
            Message::ToRequester(message) => match message {
                ToRequester::Offer(capabilities) => {
                    write!(
                        line,
                        "Offer {:?} {} {:?}",
                        capabilities.name, capabilities.numeric_class, capabilities.pilots
                    )
                }
                ToRequester::Heartbeat { lease } => write!(line, "Heartbeat {lease}"),
                ToRequester::Deliver { lease, compute_ms } => write!(line, "Deliver {lease} {compute_ms}ms {body}"),
                ToRequester::Refuse { lease, reason } => write!(line, "Refuse {lease}: {reason:?}"),
                ToRequester::Leave => write!(line, "Leave"),
            },
        }
    }
}

fn kind(work: &Work) -> &'static str {
    match work {
        Work::Encode { .. } => "encode",
        Work::Denoise { .. } => "denoise",
        Work::Run { .. } => "run",
        Work::Decode { .. } => "decode",
        Work::Paint { .. } => "paint",
    }
}
