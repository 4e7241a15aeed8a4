//! What all kernels share: filling in a template, and folding many workgroups into a grid.

/// Most workgroups on one axis of a dispatch that every WebGPU device allows.
pub const WORKGROUPS_MAX: usize = 65535;

/// A WGSL kernel and the sizes of the tensors that it is to run on.
pub trait Kernel: 'static {
    /// Invocations of a workgroup along x, y and z.
    const INVOCATIONS: [u32; 3];

    /// What is written into the template: kernels of one type and variant have the same text, so that few are compiled.
    fn variant(&self) -> [usize; 3];

    /// The complete WGSL text; its entry point is `main`.
    fn source(&self) -> String;

    /// What is bound after all tensors, as a uniform of 32-bit words. All are below 2^32, as are the tensors' lengths.
    fn sizes(&self) -> Vec<usize>;

    /// Workgroups to dispatch along x, y and z, each at most [`WORKGROUPS_MAX`].
    fn grid(&self) -> [usize; 3];
}

/// Many workgroups in a row, wrapped so that none of two axes is longer than a device allows.
#[derive(Clone, Copy)]
pub(crate) struct Fold {
    /// Workgroups along the first axis; at least 1.
    pub(crate) width: usize,
    /// Rows of that width; the last one may reach beyond the end.
    pub(crate) rows: usize,
}

impl Fold {
    pub(crate) fn new(workgroups: usize) -> Self {
        let width = workgroups.clamp(1, WORKGROUPS_MAX);
        Self { width, rows: workgroups.div_ceil(width).max(1) }
    }
}

/// Replaces each `{{ NAME }}` of a template by its value.
pub(crate) fn fill(template: &str, values: &[(&str, String)]) -> String {
    let filled = values.iter().fold(template.to_owned(), |text, (name, value)| {
        let mark = format!("{{{{ {name} }}}}");
        debug_assert!(text.contains(&mark), "the template has no {mark}");
        text.replace(&mark, value)
    });
    debug_assert!(!filled.contains("{{"), "a name of the template has no value");
    filled
}

/// A size as a WGSL literal.
pub(crate) fn unsigned(value: usize) -> String {
    format!("{value}u")
}

/// A finite number as a WGSL literal that reads back as the same bits.
pub(crate) fn float(value: f32) -> String {
    format!("{value:e}f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_holds_all_workgroups_within_the_limit() {
        for workgroups in [1, 2, 65535, 65536, 65537, 131_071, 10_000_000] {
            let Fold { width, rows } = Fold::new(workgroups);
            assert!(width <= WORKGROUPS_MAX && rows <= WORKGROUPS_MAX);
            assert!(width * rows >= workgroups && width * (rows - 1) < workgroups, "{workgroups}");
        }
    }

    #[test]
    fn names_become_values_wherever_they_stand() {
        let values = [("A", unsigned(3)), ("B", float(0.1))];
        assert_eq!(fill("const a = {{ A }}; {{ B }} + {{ A }}", &values), "const a = 3u; 1e-1f + 3u");
    }
}
