//! Tells a GPU from a program that pretends to be one.

/// What a browser or a driver says of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Who made it.
    pub vendor: String,
    /// Its family.
    pub architecture: String,
    /// Its name, or an identifier.
    pub device: String,
    /// In words.
    pub description: String,
    /// Whether the browser itself calls it slow but sure.
    pub fallback: bool,
}

/// What software adapters are called: Chromium's, Mesa's two, and Windows's two.
const SOFTWARE: [&str; 6] =
    ["swiftshader", "llvmpipe", "lavapipe", "softpipe", "microsoft basic render", "software rasterizer"];

impl AdapterInfo {
    /// Whether it computes on the processor: 50 to 100 times slower than our own kernels on the same processor.
    pub fn is_software(&self) -> bool {
        let fields = [&self.vendor, &self.architecture, &self.device, &self.description];
        let named = fields.iter().any(|field| {
            let field = field.to_lowercase();
            SOFTWARE.iter().any(|name| field.contains(name))
        });
        self.fallback || named
    }

    /// What to call it before people, in a few words.
    pub fn name(&self) -> String {
        let whole = match (self.description.trim(), self.device.trim()) {
            ("", "") => format!("{} {}", self.vendor.trim(), self.architecture.trim()),
            ("", device) => format!("{} {device}", self.vendor.trim()),
            (description, _) => description.to_owned(),
        };
        let whole = whole.trim();
        if whole.is_empty() { "unnamed".to_owned() } else { whole.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(vendor: &str, architecture: &str, description: &str) -> AdapterInfo {
        AdapterInfo {
            vendor: vendor.into(),
            architecture: architecture.into(),
            description: description.into(),
            ..AdapterInfo::default()
        }
    }

    #[test]
    fn software_adapters_are_recognised_whoever_names_them() {
        for software in [
            info("google", "swiftshader", ""),
            info("mesa", "", "llvmpipe (LLVM 15.0.6, 256 bits)"),
            info("", "", "Mesa lavapipe"),
            info("microsoft", "", "Microsoft Basic Render Driver"),
            AdapterInfo { fallback: true, ..info("intel", "gen-12lp", "") },
        ] {
            assert!(software.is_software(), "{software:?}");
        }
        for real in [
            info("nvidia", "ampere", ""),
            info("apple", "metal-3", ""),
            info("intel", "gen-12lp", "Intel(R) Iris(R) Xe Graphics"),
            info("", "", ""),
        ] {
            assert!(!real.is_software(), "{real:?}");
        }
    }

    #[test]
    fn an_adapter_is_called_by_the_most_telling_name_it_has() {
        assert_eq!(info("nvidia", "ampere", "").name(), "nvidia ampere");
        assert_eq!(info("nvidia", "ampere", "NVIDIA GeForce RTX 3060").name(), "NVIDIA GeForce RTX 3060");
        assert_eq!(info("", "", " ").name(), "unnamed");
    }
}
