//! What may be told from outside about an attempt: its worker's claim and its webhook. Both only have the relay look sooner.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use queue::{Attempt, AttemptKey, JobId};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

/// The jobs with an attempt that this relay drives, and how to wake whoever drives it. One job has one open attempt.
#[derive(Debug, Default)]
pub(crate) struct Driven(Mutex<BTreeMap<JobId, Arc<Notify>>>);

/// The right to drive a job's attempt, alone in this process; ends when dropped.
#[derive(Debug)]
pub(crate) struct Reins {
    driven: Arc<Driven>,
    job: JobId,
    wake: Arc<Notify>,
}

impl Driven {
    /// Takes the reins of a job, unless somebody has them.
    pub fn take(self: &Arc<Self>, job: &JobId) -> Option<Reins> {
        let wake = Arc::<Notify>::default();
        let mut jobs = self.jobs();
        if jobs.contains_key(job) {
            return None;
        }
        jobs.insert(job.clone(), Arc::clone(&wake));
        Some(Reins { driven: Arc::clone(self), job: job.clone(), wake })
    }

    /// Whether somebody here drives an attempt of this job.
    pub fn has(&self, job: &JobId) -> bool {
        self.jobs().contains_key(job)
    }

    /// Has whoever drives this job look now.
    pub fn wake(&self, job: &JobId) {
        if let Some(wake) = self.jobs().get(job) {
            wake.notify_one();
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reins {
    /// Completes when there is reason to look.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Reins {
    fn drop(&mut self) {
        self.driven.jobs().remove(&self.job);
    }
}

/// What the address of an attempt's webhook ends in: its name, and a proof that only whoever was given the address can show.
/// The nonce cannot be found from it.
pub(crate) fn webhook_token(attempt: &Attempt) -> String {
    let digest = Sha256::new_with_prefix("manyhands webhook\n").chain_update(attempt.nonce.as_str()).finalize();
    format!("{}.{}.{}", attempt.key.job, attempt.key.number, HEXLOWER.encode(&digest[..16]))
}

/// The attempt that a webhook's token names; whether it is genuine is for [`is_genuine`] to say.
pub(crate) fn attempt_of(token: &str) -> Option<AttemptKey> {
    let mut parts = token.rsplitn(3, '.');
    let (_proof, number, job) = (parts.next()?, parts.next()?, parts.next()?);
    Some(AttemptKey { job: JobId::new(job).ok()?, number: number.parse().ok()? })
}

/// Whether the token is this attempt's, in a time that does not tell where it differs.
pub(crate) fn is_genuine(token: &str, attempt: &Attempt) -> bool {
    let genuine = webhook_token(attempt);
    let differing = genuine.bytes().zip(token.bytes()).fold(0, |differing, (one, other)| differing | (one ^ other));
    differing == 0 && genuine.len() == token.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use queue::{Endpoint, HoldAsk, MicroUsd, Nonce, Owner, Price, RoomName, UnixMs, UserName};

    use super::*;

    fn attempt(nonce: u8) -> Attempt {
        let second = Duration::from_secs(1);
        let price =
            Price { per_second: MicroUsd(1), cold_start_max: second, execution_max: second, idle: Duration::ZERO };
        let endpoint = Endpoint::new("a").unwrap();
        let ask = HoldAsk { endpoint, price, ttl: second, claims: true, driver: Owner::new("relay").unwrap() };
        let key = AttemptKey { job: JobId::from_random([1; 16]), number: 2 };
        let whose = (RoomName::new("room").unwrap(), UserName::new("user").unwrap());
        Attempt::hold(key, 1, whose, ask, Nonce::from_random([nonce; 16]), UnixMs(0)).0
    }

    #[test]
    fn a_webhooks_token_names_its_attempt_and_is_no_others() {
        let (one, other) = (attempt(3), attempt(4));
        let token = webhook_token(&one);
        assert_eq!(attempt_of(&token), Some(one.key.clone()));
        assert!(is_genuine(&token, &one));
        assert!(!is_genuine(&token, &other));
        assert!(!is_genuine(&token[..token.len() - 1], &one));
        assert!(!token.contains(one.nonce.as_str()));
        for wrong in ["", "a", "a.b.c", "a.1", "../x.1.y"] {
            assert!(attempt_of(wrong).is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn one_at_a_time_drives_a_job_and_can_be_woken() {
        let driven = Arc::<Driven>::default();
        let job = JobId::from_random([1; 16]);
        driven.wake(&job);
        let reins = driven.take(&job).unwrap();
        assert!(driven.take(&job).is_none() && driven.has(&job));
        driven.wake(&job);
        reins.woken().await;
        drop(reins);
        assert!(!driven.has(&job));
    }
}
