//! The number by which a client finds the answer to its request.

use super::json::write_number;

/// A request's `cseq`: any JSON integer that fits an unsigned or a signed 64-bit number. It is
/// never counted with, only echoed, so it is kept as it was spelled: `-0` stays `-0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cseq {
    negative: bool,
    magnitude: u64,
}

impl Cseq {
    /// Reads one JSON token. `None` where it is no integer (`7.0`, `1e3`, `"7"`) or does not fit.
    pub fn from_json(token: &str) -> Option<Self> {
        let (negative, digits) = match token.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, token),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let magnitude: u64 = digits.parse().ok()?;
        if negative && magnitude > i64::MIN.unsigned_abs() {
            return None;
        }
        Some(Self {
            negative,
            magnitude,
        })
    }

    /// Appends it as it was spelled.
    pub fn write(self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        write_number(self.magnitude, out);
    }

    /// Whether it is 0, however spelled.
    pub fn is_zero(self) -> bool {
        self.magnitude == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_64_bit_integer_is_echoed_as_it_was_spelled() {
        for token in [
            "0",
            "-0",
            "7",
            "-1",
            "18446744073709551615",
            "-9223372036854775808",
        ] {
            let mut echo = Vec::new();
            Cseq::from_json(token).unwrap().write(&mut echo);
            assert_eq!(echo, token.as_bytes());
        }
    }

    #[test]
    fn what_is_no_integer_or_does_not_fit_is_refused() {
        for token in [
            "7.0",
            "1e3",
            "\"7\"",
            "null",
            "true",
            "[]",
            "-",
            "18446744073709551616",
            "-9223372036854775809",
        ] {
            assert_eq!(Cseq::from_json(token), None, "{token}");
        }
    }
}
