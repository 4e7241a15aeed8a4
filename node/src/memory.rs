//! Memory: how much a process holds, how much there is, and how much it shall hold at most.

use std::str::FromStr;

/// Of the machine's memory, what a supervised process may hold unless it is told: the rest is for everybody else.
const SHARE_PERCENT: u64 = 75;

/// How much memory a process shall hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// Whatever it wants.
    Unlimited,
}

impl Budget {
    /// Three quarters of this machine's memory, or of what its container may use; without a limit where nobody tells how
    /// much there is.
    pub fn of_this_machine() -> Self {
        total_bytes().map_or(Self::Unlimited, |total| Self::Bytes(total / 100 * SHARE_PERCENT))
    }

    /// Whether so many bytes are more than it allows.
    pub fn is_exceeded_by(self, bytes: u64) -> bool {
        match self {
            Self::Bytes(most) => bytes > most,
            Self::Unlimited => false,
        }
    }

    /// Half of it: what a process may hold of models between two jobs.
    #[must_use]
    pub fn half(self) -> Self {
        match self {
            Self::Bytes(most) => Self::Bytes(most / 2),
            Self::Unlimited => Self::Unlimited,
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    /// Reads `6GB`, `512MiB`, a number of bytes, or `unlimited`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("unlimited") {
            return Ok(Self::Unlimited);
        }
        let wrong = || format!("{text:?} is no amount of memory; give for example 6GB, 512MiB or unlimited");
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" | "k" => 1000,
            "mb" | "m" => 1000 * 1000,
            "gb" | "g" => 1000 * 1000 * 1000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        // A float holds every number of bytes that a machine has.
        let bytes = (number * factor as f64) as u64;
        if bytes == 0 { Err(wrong()) } else { Ok(Self::Bytes(bytes)) }
    }
}

/// An amount of memory for people.
pub fn in_words(bytes: u64) -> String {
    const GIGA: f64 = 1e9;
    const MEGA: f64 = 1e6;
    let bytes = bytes as f64;
    if bytes >= GIGA { format!("{:.1} GB", bytes / GIGA) } else { format!("{:.0} MB", bytes / MEGA) }
}

/// What a process holds in memory; `None` where nobody tells, which is everywhere but on Linux.
pub fn resident_bytes(process: u32) -> Option<u64> {
    bytes_of(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?, "VmRSS:")
}

/// The machine's memory, or what its container may use if that is less.
fn total_bytes() -> Option<u64> {
    let machine = bytes_of(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    // "max" where the container has no limit of its own, and no file outside containers.
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse().ok());
    Some(container.map_or(machine, |container: u64| container.min(machine)))
}

/// The bytes of a line such as `VmRSS:    1234 kB`.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_as_people_write_it() {
        let read = |text: &str| text.parse::<Budget>();
        for (text, bytes) in [("6GB", 6_000_000_000), ("1.5 GiB", 3 << 29), ("512mib", 512 << 20), ("123456", 123_456)]
        {
            assert_eq!(read(text), Ok(Budget::Bytes(bytes)), "{text}");
        }
        assert_eq!(read("unlimited"), Ok(Budget::Unlimited));
        for text in ["", "GB", "0", "-1GB", "6 apples", "1e99GB", "NaN"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_budget_is_exceeded_by_more_and_half_of_it_by_more_than_half() {
        let budget = Budget::Bytes(100);
        assert!(!budget.is_exceeded_by(100) && budget.is_exceeded_by(101));
        assert!(!budget.half().is_exceeded_by(50) && budget.half().is_exceeded_by(51));
        assert!(!Budget::Unlimited.half().is_exceeded_by(u64::MAX));
    }

    #[test]
    fn lines_of_proc_are_read() {
        assert_eq!(bytes_of("Name:\tx\nVmRSS:\t    1234 kB\n", "VmRSS:"), Some(1234 * 1024));
        assert_eq!(bytes_of("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_holds_less_than_there_is() {
        let resident = resident_bytes(std::process::id()).unwrap();
        assert!(resident > 0 && resident < total_bytes().unwrap());
        assert_eq!(resident_bytes(u32::MAX), None);
    }

    #[test]
    fn amounts_are_told_in_the_unit_people_expect() {
        assert_eq!([in_words(6_400_000_000), in_words(23_000_000)], ["6.4 GB", "23 MB"]);
    }
}
