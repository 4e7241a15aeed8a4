//! Whom a requester believes: policies, trust domains, and when two answers are the same answer.

use protocol::limits::AGREEMENT_RELATIVE;

use crate::mutants::{Mutant, is};

/// Peers that may be one person: one network, one invitation. Two peers of a domain never confirm each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustDomain(pub String);

/// What a requester knows of a peer beside what the peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whom it may belong to.
    pub domain: TrustDomain,
    /// Whether it is the requester's own device: its answers are true, and judge others.
    pub is_own: bool,
}

impl Standing {
    /// A peer related to nobody.
    pub fn alone(peer: &protocol::PeerId) -> Self {
        Self { domain: TrustDomain(peer.as_str().to_owned()), is_own: false }
    }

    /// The requester's own device.
    pub fn own() -> Self {
        Self { domain: TrustDomain("own".into()), is_own: true }
    }
}

/// How two answers to one unit compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The same bits.
    Equal,
    /// As close as honest workers of different numeric classes come.
    Close,
    /// At least one is wrong.
    Far,
}

/// Compares two answers, little-endian f32 of equal length.
pub fn compare(one: &[u8], other: &[u8]) -> Agreement {
    if one == other {
        return Agreement::Equal;
    }
    if one.len() != other.len() {
        return Agreement::Far;
    }
    let (mut difference, mut norm) = (0.0_f64, 0.0_f64);
    for (a, b) in one.chunks_exact(4).zip(other.chunks_exact(4)) {
        let [a, b] = [a, b].map(|word| f64::from(f32::from_le_bytes([word[0], word[1], word[2], word[3]])));
        difference += (a - b) * (a - b);
        norm += a * a;
    }
    let bound = f64::from(AGREEMENT_RELATIVE) * if is(Mutant::LooseTolerance) { 100.0 } else { 1.0 };
    if difference <= bound * bound * norm { Agreement::Close } else { Agreement::Far }
}

#[cfg(test)]
mod tests {
    use protocol::tensor::to_bytes;

    use super::*;

    #[test]
    fn answers_agree_up_to_the_noise_of_numeric_classes() {
        let honest: Vec<f32> = (0..100).map(|index| (index as f32 - 50.0) / 7.0).collect();
        let scaled = |factor: f32| to_bytes(&honest.iter().map(|value| value * factor).collect::<Vec<_>>());
        assert_eq!(compare(&scaled(1.0), &scaled(1.0)), Agreement::Equal);
        assert_eq!(compare(&scaled(1.0), &scaled(1.0 + 1e-5)), Agreement::Close);
        assert_eq!(compare(&scaled(1.0), &scaled(1.01)), Agreement::Far);
        assert_eq!(compare(&scaled(1.0), &scaled(1.0)[4..]), Agreement::Far);
        assert_eq!(compare(&to_bytes(&[0.0; 4]), &to_bytes(&[1e-9; 4])), Agreement::Far, "nothing is close to nothing");
    }
}
