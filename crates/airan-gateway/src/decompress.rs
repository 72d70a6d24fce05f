//! Bodies out of their compression, never beyond what a request may hold.
//!
//! Output is taken in small steps and each is asked for before the next, so a body that inflates a thousandfold costs what
//! the limit allows and no more. The zstd window, which the sender chooses and the decoder must allocate, is limited too.

use std::io::Read;

use airan_model::reject::Reason;
use bytes::Bytes;

use crate::Refusal;
use crate::inflight::Ticket;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Not at all.
    Identity,
    /// gzip, RFC 1952, one member or more.
    Gzip,
    /// Zstandard, RFC 8878, one frame or more.
    Zstd,
    /// Snappy's block format, as Prometheus remote write has it: one block that begins with its length.
    Snappy,
}

/// What doors accept, as `Accept-Encoding` says it.
pub(crate) const ACCEPTED: &str = "gzip, zstd, snappy, identity";

/// Bytes taken from a decoder before the limits are asked again.
const STEP: u64 = 64 * 1024;

/// Smallest and largest window, as powers of two, that a zstd decoder is set to: the format's own floor, and its usual 128 MiB.
const WINDOW_LOG: (u32, u32) = (10, 27);

impl Encoding {
    /// By the value of a `Content-Encoding` or `grpc-encoding` header.
    pub fn from_header(value: Option<&[u8]>) -> Result<Encoding, Refusal> {
        let Some(value) = value else { return Ok(Encoding::Identity) };
        match value.trim_ascii() {
            value if value.is_empty() || value.eq_ignore_ascii_case(b"identity") => Ok(Encoding::Identity),
            value if value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip") => Ok(Encoding::Gzip),
            value if value.eq_ignore_ascii_case(b"zstd") => Ok(Encoding::Zstd),
            value if value.eq_ignore_ascii_case(b"snappy") => Ok(Encoding::Snappy),
            _ => Err(Refusal::Unsupported { message: format!("the encoding is not one of {ACCEPTED}") }),
        }
    }
}

/// The body itself, at most `limit` bytes. `ticket` holds what is kept.
pub(crate) fn decompress(encoding: Encoding, body: Bytes, limit: usize, ticket: &mut Ticket) -> Result<Bytes, Refusal> {
    let inflated = match encoding {
        Encoding::Snappy => snappy(&body, limit, ticket)?,
        Encoding::Identity => return if body.len() > limit { Err(too_large(limit)) } else { Ok(body) },
        Encoding::Gzip => drain(flate2::bufread::MultiGzDecoder::new(&body[..]), &body, limit, ticket)?,
        Encoding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(|error| broken(&error, limit))?;
            let log = usize::BITS - limit.saturating_sub(1).leading_zeros();
            decoder.window_log_max(log.clamp(WINDOW_LOG.0, WINDOW_LOG.1)).map_err(|error| broken(&error, limit))?;
            drain(decoder, &body, limit, ticket)?
        }
    };
    ticket.release(body.len());
    Ok(inflated.into())
}

/// A block says how long it becomes, so what it needs is known and asked for before any of it is there.
fn snappy(body: &[u8], limit: usize, ticket: &mut Ticket) -> Result<Vec<u8>, Refusal> {
    let damaged = |error: snap::Error| {
        Refusal::malformed(Reason::BadCompression, format!("the compressed body is damaged: {error}"))
    };
    let length = snap::raw::decompress_len(body).map_err(damaged)?;
    if length > limit {
        return Err(too_large(limit));
    }
    ticket.hold(length)?;
    snap::raw::Decoder::new().decompress_vec(body).map_err(damaged)
}

fn drain(mut from: impl Read, body: &[u8], limit: usize, ticket: &mut Ticket) -> Result<Vec<u8>, Refusal> {
    // Telemetry shrinks about four- to tenfold; the vector grows on its own where it shrank more.
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(limit));
    loop {
        let taken = (&mut from).take(STEP).read_to_end(&mut out).map_err(|error| broken(&error, limit))?;
        if taken == 0 {
            return Ok(out);
        }
        if out.len() > limit {
            return Err(too_large(limit));
        }
        ticket.hold(taken)?;
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::TooLarge { limit: limit as u64 }
}

fn broken(error: &std::io::Error, limit: usize) -> Refusal {
    match error.kind() {
        // ZSTD_error_frameParameter_windowTooLarge: the frame says that it needs a window over the limit.
        _ if error.to_string().contains("too much memory") => too_large(limit),
        std::io::ErrorKind::UnexpectedEof => {
            Refusal::malformed(Reason::BadCompression, "the compressed body is cut off")
        }
        _ => Refusal::malformed(Reason::BadCompression, format!("the compressed body is damaged: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use prometheus::IntGauge;

    use super::*;
    use crate::inflight::InFlight;

    const LIMIT: usize = 1 << 20;

    fn ticket(bytes_max: usize) -> Ticket {
        let gauge = || IntGauge::new("g", "g").unwrap();
        InFlight::new(1, bytes_max, Duration::from_secs(1), gauge(), gauge()).enter().unwrap()
    }

    fn gzip(body: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap().into()
    }

    fn inflate(encoding: Encoding, body: &Bytes) -> Result<Bytes, Refusal> {
        let mut ticket = ticket(LIMIT * 4);
        ticket.hold(body.len()).unwrap();
        decompress(encoding, body.clone(), LIMIT, &mut ticket)
    }

    /// Scenario: a body in each encoding, exactly as large as the limit and one byte over it.
    /// Guarantees: the limit holds after decompression and is not off by one.
    #[test]
    fn the_limit_holds_after_decompression() {
        for (size, fits) in [(0, true), (LIMIT, true), (LIMIT + 1, false)] {
            let body = vec![b'a'; size];
            let zstd: Bytes = zstd::encode_all(&body[..], 1).unwrap().into();
            let snappy: Bytes = snap::raw::Encoder::new().compress_vec(&body).unwrap().into();
            for (encoding, sent) in [
                (Encoding::Identity, body.clone().into()),
                (Encoding::Gzip, gzip(&body)),
                (Encoding::Zstd, zstd),
                (Encoding::Snappy, snappy),
            ] {
                let got = inflate(encoding, &sent);
                match fits {
                    true => assert_eq!(got.unwrap().len(), size, "{encoding:?}"),
                    false => assert_eq!(got.unwrap_err(), Refusal::TooLarge { limit: LIMIT as u64 }, "{encoding:?}"),
                }
            }
        }
    }

    /// Scenario: each prefix of a compressed body, garbage behind one, and bytes that are not compressed at all.
    /// Guarantees: a clear error, no panic, and never a shorter body in silence.
    #[test]
    fn damaged_compression_is_refused() {
        let body: Vec<u8> = (0..20_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (encoding, whole) in
            [(Encoding::Gzip, gzip(&body)), (Encoding::Zstd, zstd::encode_all(&body[..], 1).unwrap().into())]
        {
            for cut in [1, 5, 17, whole.len() / 2, whole.len() - 1] {
                let refusal = inflate(encoding, &whole.slice(..cut)).unwrap_err();
                assert_eq!(refusal.reason(), "bad_compression", "{encoding:?} cut at {cut}");
            }
            let mut tail = whole.to_vec();
            tail.extend_from_slice(b"garbage");
            assert!(inflate(encoding, &tail.into()).is_err(), "{encoding:?} with a tail");
            assert!(inflate(encoding, &Bytes::from_static(b"{\"plain\":1}")).is_err(), "{encoding:?} of plain text");
        }
    }

    /// Scenario: snappy blocks cut anywhere, with a tail, with a length that lies, and one that claims 4 GiB.
    /// Guarantees: a clear error, and nothing allocated for a claim over the limit.
    #[test]
    fn damaged_snappy_is_refused() {
        let body: Vec<u8> = (0..20_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let whole = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        for cut in [1, 5, whole.len() / 2, whole.len() - 1] {
            let refusal = inflate(Encoding::Snappy, &whole[..cut].to_vec().into()).unwrap_err();
            assert_eq!(refusal.reason(), "bad_compression", "cut at {cut}");
        }
        assert!(inflate(Encoding::Snappy, &[&whole[..], b"garbage"].concat().into()).is_err());
        assert!(inflate(Encoding::Snappy, &Bytes::new()).is_err());
        let huge = Bytes::from_static(b"\xff\xff\xff\xff\x0f\x00a");
        assert_eq!(inflate(Encoding::Snappy, &huge).unwrap_err().reason(), "too_large");
    }

    /// Scenario: a zstd frame that asks for a window of 128 MiB.
    /// Guarantees: it is refused as too large, before memory is spent on it.
    #[test]
    fn a_zstd_window_over_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&vec![b'a'; LIMIT / 2]).unwrap();
        let body: Bytes = encoder.finish().unwrap().into();
        assert_eq!(inflate(Encoding::Zstd, &body).unwrap_err().reason(), "too_large");
    }

    /// Scenario: a body within the request's limit, while other requests hold almost all that may be under way.
    /// Guarantees: inflating stops where the common limit is.
    #[test]
    fn inflating_asks_before_it_keeps_more() {
        let body = gzip(&vec![b'a'; LIMIT]);
        let mut ticket = ticket(300_000);
        ticket.hold(body.len()).unwrap();
        assert_eq!(decompress(Encoding::Gzip, body, LIMIT, &mut ticket).unwrap_err().reason(), "busy");
    }

    #[test]
    fn encodings_are_told_by_their_header() {
        for (header, encoding) in [
            (None, Some(Encoding::Identity)),
            (Some("identity"), Some(Encoding::Identity)),
            (Some(" GZIP "), Some(Encoding::Gzip)),
            (Some("zstd"), Some(Encoding::Zstd)),
            (Some("snappy"), Some(Encoding::Snappy)),
            (Some("br"), None),
            (Some("gzip, zstd"), None),
        ] {
            assert_eq!(Encoding::from_header(header.map(str::as_bytes)).ok(), encoding, "{header:?}");
        }
    }
}
