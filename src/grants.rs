//! What a member may do in its room beyond being there.

/// When a token was issued (its claim `iat`, RFC 7519 section 4.1.6), in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuedAt(pub i64);

/// What a member may do. Without a token, or where its token does not say, everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// stream.add
    pub publish: bool,
    /// broadcast
    pub broadcast: bool,
}

impl Grants {
    /// Everything.
    pub const ALL: Self = Self {
        publish: true,
        broadcast: true,
    };

    /// Nothing but being there.
    pub const NONE: Self = Self {
        publish: false,
        broadcast: false,
    };

    /// The words that tokens use.
    pub const NAMES: [&str; 2] = ["publish", "broadcast"];

    /// Grants what `name` stands for: nothing, where it is not one of [`Self::NAMES`].
    pub fn add(&mut self, name: &str) {
        match name {
            "publish" => self.publish = true,
            "broadcast" => self.broadcast = true,
            _ => {}
        }
    }
}
