//! How often the relay is asked.

/// A job is looked at every second while it is new: small pictures are done by then.
const LOOK_SOON_MS: u32 = 1_000;

/// For so many looks.
const LOOKS_SOON: u32 = 15;

/// A job that takes longer is looked at this often.
const LOOK_MS: u32 = 2_000;

/// The room's queue is counted this often while somebody wants to know.
pub const LINE_MS: u32 = 5_000;

/// After a failure the pause is this long, and doubles with every further one.
const FAILED_MS: u32 = 1_000;

/// No pause is longer, unless the relay asks for more.
const PAUSE_MS_MAX: u32 = 30_000;

/// Nobody is kept waiting longer than this by a relay's word.
const ASKED_MS_MAX: u32 = 120_000;

/// The pause before the next look at a job that was looked at so often.
pub fn look_after_ms(looks: u32) -> u32 {
    if looks < LOOKS_SOON { LOOK_SOON_MS } else { LOOK_MS }
}

/// The pause after so many failures in a row, of which the last came with the relay's wish.
pub fn again_after_ms(failures: u32, retry_after_s: Option<u64>) -> u32 {
    let pause = FAILED_MS.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(PAUSE_MS_MAX);
    let asked = retry_after_s.map_or(0, |seconds| u32::try_from(seconds.saturating_mul(1000)).unwrap_or(u32::MAX));
    pause.max(asked.min(ASKED_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_job_is_looked_at_more_often_than_an_old_one() {
        assert_eq!((look_after_ms(0), look_after_ms(LOOKS_SOON)), (LOOK_SOON_MS, LOOK_MS));
    }

    #[test]
    fn pauses_double_up_to_their_limit_and_follow_the_relays_word() {
        let pauses: Vec<_> = (1..8).map(|failures| again_after_ms(failures, None)).collect();
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(again_after_ms(u32::MAX, None), PAUSE_MS_MAX);
        assert_eq!(again_after_ms(1, Some(7)), 7000);
        assert_eq!(again_after_ms(5, Some(1)), 16_000);
        assert_eq!(again_after_ms(1, Some(u64::MAX)), ASKED_MS_MAX);
    }
}
