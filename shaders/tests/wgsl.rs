//! Every kernel's WGSL is valid for any sizes, says `main` with the right workgroup, and fits WebGPU's default limits.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fmt::Debug;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, proc::Layouter};
use shaders::{Attention, Conv, GroupNorm, Kernel, Linear};

/// WebGPU's default for `maxComputeWorkgroupStorageSize`.
const WORKGROUP_BYTES_MAX: u32 = 16 * 1024;

/// WebGPU's default for `maxComputeInvocationsPerWorkgroup`.
const INVOCATIONS_MAX: u32 = 256;

/// WebGPU's default for `maxStorageBuffersPerShaderStage`.
const BINDINGS_MAX: u32 = 8;

fn check<K: Kernel + Debug>(kernel: &K, bindings: u32) {
    let source = kernel.source();
    let module =
        naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{kernel:?}: {}", e.emit_to_string(&source)));
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    validator.validate(&module).unwrap_or_else(|e| panic!("{kernel:?}: {}", e.emit_to_string(&source)));

    assert_eq!(module.entry_points.len(), 1, "{kernel:?}");
    let entry = &module.entry_points[0];
    assert_eq!((entry.name.as_str(), entry.workgroup_size), ("main", K::INVOCATIONS), "{kernel:?}");
    assert!(K::INVOCATIONS.iter().product::<u32>() <= INVOCATIONS_MAX);

    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let shared = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, variable)| layouter[variable.ty].size).sum();
    assert!(bytes <= WORKGROUP_BYTES_MAX, "{kernel:?} needs {bytes} bytes of workgroup memory");

    let mut bound: Vec<u32> =
        module.global_variables.iter().filter_map(|(_, variable)| Some(variable.binding?.binding)).collect();
    bound.sort_unstable();
    assert!(bound.iter().copied().eq(0..bindings), "{kernel:?} binds {bound:?}");
    assert!(bindings <= BINDINGS_MAX);

    // The last binding is the sizes, as many words as the kernel hands over.
    let sizes =
        module.global_variables.iter().find(|(_, variable)| variable.name.as_deref() == Some("sizes")).unwrap().1;
    assert_eq!(sizes.binding.unwrap().binding, bindings - 1, "{kernel:?}");
    assert_eq!(sizes.space, AddressSpace::Uniform, "{kernel:?}");
    assert_eq!(layouter[sizes.ty].size as usize, 4 * kernel.sizes().len(), "{kernel:?}");
    assert!(kernel.sizes().iter().all(|&size| u32::try_from(size).is_ok()));
}

#[test]
fn equal_variants_have_equal_texts_and_others_have_not() {
    let conv =
        |kernel, rows| Conv { batch: 1, inputs: 3, outputs: 4, rows, columns: 8, kernel, stride: 1, padding: (1, 1) };
    let linear = |rows, bias| Linear { rows, inputs: 3, outputs: 4, bias };
    fn alike<K: Kernel>(a: &K, b: &K) -> [bool; 2] {
        [a.variant() == b.variant(), a.source() == b.source()]
    }
    assert_eq!(alike(&conv(3, 8), &conv(3, 9)), [true; 2]);
    assert_eq!(alike(&conv(3, 8), &conv(1, 8)), [false; 2]);
    assert_eq!(alike(&linear(1, true), &linear(2, true)), [true; 2]);
    assert_eq!(alike(&linear(1, true), &linear(1, false)), [false; 2]);
}

#[test]
fn conv_is_valid() {
    for (kernel, stride, padding) in [(1, 1, (0, 0)), (3, 1, (1, 1)), (3, 2, (0, 1))] {
        for [inputs, outputs, rows, columns] in [[1, 1, 1, 2], [320, 640, 64, 64], [4, 3, 4099, 4097]] {
            check(&Conv { batch: 2, inputs, outputs, rows, columns, kernel, stride, padding }, 5);
        }
    }
}

#[test]
fn linear_is_valid() {
    for (rows, inputs, outputs) in [(1, 1, 1), (77, 1024, 320), (5_000_000, 3, 5)] {
        check(&Linear { rows, inputs, outputs, bias: true }, 5);
        check(&Linear { rows, inputs, outputs, bias: false }, 4);
    }
}

#[test]
fn group_norm_and_its_statistics_are_valid() {
    for (channels, area) in [(1, 1), (10, 4096), (4, 262_144)] {
        for silu in [false, true] {
            let kernel = GroupNorm { batch: 2, groups: 32, channels, area, epsilon: 1e-6f32.to_bits(), silu };
            check(&kernel, 6);
            check(&kernel.statistics(), 3);
        }
    }
}

#[test]
fn attention_is_valid() {
    for (queries, keys, width) in [(1, 1, 1), (4096, 77, 64), (256, 256, shaders::WIDTH_MAX)] {
        for causal in [false, true] {
            let strides = |tokens| Attention::dense(20, tokens, width);
            let (query_strides, key_strides, value_strides) = (strides(queries), strides(keys), strides(keys));
            let (batch, heads) = (1, 20);
            check(
                &Attention { batch, heads, queries, keys, width, query_strides, key_strides, value_strides, causal },
                5,
            );
        }
    }
}
