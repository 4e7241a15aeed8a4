//! The serial driver: computes every unit of a painter where it stands, one after the other.

use protocol::tensor::TensorError;
use protocol::{Unit, UnitId};

use super::{Painter, Stage};

/// Why a painting stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaintError<E> {
    /// A unit could not be computed.
    #[error("{0}")]
    Compute(E),
    /// A unit's output is not what its work says.
    #[error("unit {} of stage {}: {error}", .unit.index, .unit.stage)]
    Output {
        /// The unit.
        unit: UnitId,
        /// What is wrong with its output.
        error: TensorError,
    },
}

/// Paints what is left of `painter`'s picture. `compute` gets a unit, its input body, and the conditioning's bytes if the
/// unit names one, and returns the output body.
pub fn paint<E>(
    painter: &mut Painter,
    mut compute: impl FnMut(&Unit, &[u8], Option<&[u8]>) -> Result<Vec<u8>, E>,
) -> Result<(), PaintError<E>> {
    while painter.stage() != Stage::Done {
        for unit in painter.units() {
            if !painter.is_wanted(unit.id) {
                continue;
            }
            let conditioning = painter.conditioning().map(|(_, bytes)| bytes);
            let conditioning = conditioning.filter(|_| unit.work.conditioning().is_some());
            let output = compute(&unit, &painter.input(unit.id), conditioning).map_err(PaintError::Compute)?;
            painter.accept(unit.id, &output).map_err(|error| PaintError::Output { unit: unit.id, error })?;
        }
        painter.advance();
    }
    Ok(())
}
