//! Values that are serialized before the statement that will carry them exists.
//!
//! The driver serializes a statement's values when it executes it, from references. A request has to own what it
//! sends, and to send it more than once, so it keeps the cells as bytes.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Mutex, PoisonError},
};

use scylla::{
    errors::SerializationError,
    frame::response::result::ColumnSpec,
    serialize::{
        row::{RowSerializationContext, SerializeRow},
        writers::RowWriter,
    },
};

/// The serialized values of one statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    // As the protocol has them: a length and the bytes, cell after cell. -1 is null, -2 is unset.
    bytes: Vec<u8>,
    cells: usize,
}

impl Row {
    /// Serializes values for the bind markers that `columns` describe.
    pub(crate) fn new(
        columns: &[ColumnSpec<'_>],
        values: &impl SerializeRow,
    ) -> Result<Self, SerializationError> {
        let mut bytes = Vec::new();
        let mut writer = RowWriter::new(&mut bytes);
        values.serialize(&RowSerializationContext::from_specs(columns), &mut writer)?;
        let cells = writer.value_count();
        Ok(Self { bytes, cells })
    }
}

const NULL: i32 = -1;

/// Writes the cells as they are: whoever made the row has checked them against the columns.
impl SerializeRow for Row {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        if ctx.columns().len() != self.cells {
            return Err(SerializationError::new(ColumnsChanged));
        }
        let mut rest = self.bytes.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let cell = writer.make_cell_writer();
            let length = i32::from_be_bytes(*length);
            rest = tail;
            if let Ok(length) = usize::try_from(length) {
                let (value, tail) =
                    rest.split_at_checked(length).ok_or_else(|| SerializationError::new(ColumnsChanged))?;
                cell.set_value(value).map_err(SerializationError::new)?;
                rest = tail;
            } else if length == NULL {
                cell.set_null();
            } else {
                cell.set_unset();
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.cells == 0
    }
}

#[derive(Debug)]
struct ColumnsChanged;

impl fmt::Display for ColumnsChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the statement's bind markers have changed since its values were serialized")
    }
}

impl StdError for ColumnsChanged {}

/// Values that keep the description of the bind markers, and then refuse to be sent.
///
/// A statement that is sent with values is prepared on the one node that was picked for it, and its values are
/// serialized after that. So sending these is a way to learn a statement's bind markers from a single node, where
/// the driver's own `prepare` asks all nodes and waits for the slowest.
#[derive(Debug, Default)]
pub(crate) struct CaptureColumns {
    columns: Mutex<Option<Vec<ColumnSpec<'static>>>>,
}

impl CaptureColumns {
    /// The bind markers, if the statement got as far as to be prepared.
    pub(crate) fn take(&self) -> Option<Vec<ColumnSpec<'static>>> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl SerializeRow for CaptureColumns {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        _: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let columns = ctx.columns().iter().cloned().map(ColumnSpec::into_owned).collect();
        *self.columns.lock().unwrap_or_else(PoisonError::into_inner) = Some(columns);
        Err(SerializationError::new(Captured))
    }

    // Only a statement with values is prepared first.
    fn is_empty(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Captured;

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the statement was only to be described")
    }
}

impl StdError for Captured {}
