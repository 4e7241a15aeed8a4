//! The relay's own numbers for Prometheus, in the registry that the queue's are in.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::stats::Stats;

/// Tells what the relay counts whenever somebody asks.
#[derive(Debug)]
struct Numbers(watch::Receiver<Stats>);

/// A registry with the relay's numbers.
pub(crate) fn registry(stats: watch::Receiver<Stats>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(stats)));
    registry
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.0.borrow().clone();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let gauges = [
            ("connections", "Open libp2p connections", i64::from(stats.connections)),
            ("reservations", "Peers that can be reached through this relay", count(stats.reservations)),
            ("circuits", "Pairs of peers connected through this relay", count(stats.circuits)),
            ("registrations", "Peers times rooms at the rendezvous", count(stats.registrations)),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            let name = name_of(name);
            let encoder = encoder.encode_descriptor(&name, help, None, gauge.metric_type())?;
            gauge.encode(encoder)?;
        }
        let counters = [
            ("bytes_in", "Bytes read from streams", stats.bytes_in),
            ("bytes_out", "Bytes written to streams", stats.bytes_out),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let name = name_of(name);
            let encoder = encoder.encode_descriptor(&name, help, None, counter.metric_type())?;
            counter.encode(encoder)?;
        }
        Ok(())
    }
}

fn name_of(name: &str) -> String {
    format!("manyhands_relay_{name}")
}
