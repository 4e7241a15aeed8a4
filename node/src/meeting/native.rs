//! Asking a relay where it listens, from a native node.

use protocol::RoomLink;

use super::{ANSWER_BYTES_MAX, ANSWER_TIME_MAX, Means, configure_with, read_addresses};

/// The network's settings for the room of `link`.
pub async fn configure(link: &RoomLink, means: &Means) -> Result<net::Config, String> {
    let relays = match &link.relay {
        Some(url) => relay_addresses(url.clone()).await?,
        None => Vec::new(),
    };
    configure_with(link, &relays, means)
}

async fn relay_addresses(url: String) -> Result<Vec<String>, String> {
    let address = format!("{url}/addrs");
    let ask = move || {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_TIME_MAX)).build();
        let mut answer = config.new_agent().get(&address).call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        body.map_err(|error| error.to_string())
    };
    let answer = tokio::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?;
    let answer = answer.map_err(|error| {
        format!("the relay {url} does not answer ({error}); check the room link, or start the relay")
    })?;
    read_addresses(&url, &answer)
}
