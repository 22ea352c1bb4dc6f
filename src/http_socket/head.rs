//! Where the head of an HTTP/1.1 request ends (RFC 9112 section 2): at the first empty line behind its
//! request line. Empty lines before that are skipped, and a line may end without its CR, both as
//! the parser behind has it.

/// How far a head has come, pure.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Its request line has begun.
    has_begun: bool,
    /// Something stands in the present line.
    in_line: bool,
    is_over: bool,
}

impl Head {
    /// Whether the whole of it has been seen.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Looks at what has come; so many bytes of it belong to the head.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            if self.is_over {
                return at;
            }
            match byte {
                b'\r' => {}
                b'\n' => {
                    self.is_over = self.has_begun && !self.in_line;
                    self.in_line = false;
                }
                _ => (self.has_begun, self.in_line) = (true, true),
            }
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_at_the_first_empty_line_behind_its_first() {
        for (head, rest) in [
            (
                "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                "GET / HTTP/1.1\r\n\r\n",
            ),
            ("GET / HTTP/1.1\nHost: x\n\n", "GET"),
            ("\r\n\r\nGET / HTTP/1.1\r\n\n", "\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", ""),
        ] {
            let all = [head, rest].concat();
            for split in 0..all.len() {
                let (first, second) = all.as_bytes().split_at(split);
                let mut seen = Head::default();
                let taken = seen.take(first) + seen.take(second);
                assert_eq!(&all[..taken], head);
                assert!(seen.is_over());
            }
            let mut seen = Head::default();
            assert_eq!(
                seen.take(&head.as_bytes()[..head.len() - 1]),
                head.len() - 1
            );
            assert!(!seen.is_over());
        }
    }
}
