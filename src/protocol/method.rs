//! What a client can ask for.

/// The seven methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// channel.join
    Join,
    /// channel.leave
    Leave,
    /// stream.add
    StreamAdd,
    /// stream.delete
    StreamDelete,
    /// channel.dump
    ChannelDump,
    /// media_server.dump
    MediaServerDump,
    /// broadcast
    Broadcast,
}

impl Method {
    /// All of them, in the order of their definition.
    pub const ALL: [Self; 7] = [
        Self::Join,
        Self::Leave,
        Self::StreamAdd,
        Self::StreamDelete,
        Self::ChannelDump,
        Self::MediaServerDump,
        Self::Broadcast,
    ];

    /// Its place in [`Method::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "channel.join",
            Self::Leave => "channel.leave",
            Self::StreamAdd => "stream.add",
            Self::StreamDelete => "stream.delete",
            Self::ChannelDump => "channel.dump",
            Self::MediaServerDump => "media_server.dump",
            Self::Broadcast => "broadcast",
        }
    }

    /// The method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// Whether its answers repeat the request's `session` at the top.
    pub fn reply_has_session(self) -> bool {
        matches!(self, Self::Leave | Self::StreamAdd | Self::StreamDelete)
    }
}
