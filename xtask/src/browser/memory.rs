//! Memory of a tree of processes, from /proc.

use std::collections::BTreeMap;

/// Proportional memory in KiB of a process and all its descendants: pages that several of them share are counted once.
/// `None` where /proc does not tell.
pub fn resident_kib(root: u32) -> Option<u64> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // Processes come and go while we look.
        let stat = id.and_then(|id| Some((id, std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)));
        if let Some((id, parent)) = stat.and_then(|(id, stat)| Some((id, parent(&stat)?))) {
            parents.insert(id, parent);
        }
    }
    let belongs = |mut id: u32| {
        // A chain of parents ends at process 1, whose parent is 0.
        while id != root {
            match parents.get(&id) {
                Some(&parent) if parent != 0 => id = parent,
                _ => return false,
            }
        }
        true
    };
    let ours: Vec<u64> = parents.keys().filter(|id| belongs(**id)).filter_map(|id| of_one_kib(*id)).collect();
    (!ours.is_empty()).then(|| ours.iter().sum())
}

/// The parent's id stands after the name in brackets, which may itself hold brackets and blanks.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn of_one_kib(id: u32) -> Option<u64> {
    let shares = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
    let line = shares.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_name_does_not_hide_its_parent() {
        assert_eq!(parent("17 (chromium) S 4 17 17 0"), Some(4));
        assert_eq!(parent("17 (evil) S 99 (x) S 4 17 17 0"), Some(4));
        assert_eq!(parent(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_memory_is_counted() {
        assert!(resident_kib(std::process::id()).unwrap() > 100);
    }
}
