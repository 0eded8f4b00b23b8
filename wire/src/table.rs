//! FlatBuffers tables: verified reading under tight bounds, and building.
//!
//! Called by the decoders of frames and event bodies whose body is one table root. The verifier's own defaults let a few
//! hundred bytes that share sub-tables burn tens of milliseconds; here work is bounded by the length of the input: depth,
//! number of tables and the size of the message with all sharing expanded. A verifier is made anew for each buffer,
//! because it does not reset all of its counters. Verification is memory safety, not meaning: ranges, enum values and
//! counts are checked by each decoder.

use bytes::{BufMut, BytesMut};
use flatbuffers::{FlatBufferBuilder, Follow, Verifiable, VerifierOptions, WIPOffset};

use crate::frame::WireError;

/// Deepest nesting of tables; the schema needs 2.
const DEPTH_MAX: usize = 8;
/// Most tables in one buffer, whatever its length.
const TABLES_MAX: usize = 4_096;

/// The root table of `buffer`, verified; every accessor of it is then within bounds.
pub(crate) fn root<'a, T>(buffer: &'a [u8]) -> Result<T::Inner, WireError>
where
    T: 'a + Follow<'a> + Verifiable,
{
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: TABLES_MAX.min(16 + buffer.len() / 16),
        max_apparent_size: 2 * buffer.len() + 1_024,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, buffer)
        .map_err(|_| WireError::bad("table does not verify"))
}

/// Appends a buffer that `build` finishes (with `finish_minimal`).
pub(crate) fn put(out: &mut BytesMut, build: impl FnOnce(&mut FlatBufferBuilder<'_>)) {
    let mut builder = FlatBufferBuilder::new();
    build(&mut builder);
    out.put_slice(builder.finished_data());
}

/// A string, left out when empty: absent means empty.
pub(crate) fn put_text<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    text: &str,
) -> Option<WIPOffset<&'a str>> {
    (!text.is_empty()).then(|| builder.create_string(text))
}
