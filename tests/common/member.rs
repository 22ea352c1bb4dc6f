//! A member that understands event numbers, over all the connections that it has in turn.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Client, Received};

/// See the module's text. What it reads it writes down, and takes nothing amiss silently: numbers
/// rise, and every event carries the session.
pub struct Member {
    addr: SocketAddr,
    pub channel: String,
    pub endpoint: String,
    pub session: String,
    /// Its connection; `None` while it is cut off.
    client: Option<Client>,
    /// The number of its own join.
    pub joined: u64,
    /// The number of the last event that it knows.
    pub last_event: u64,
    /// Every event: its number, and what it said but for number and session.
    pub log: Vec<(u64, Value)>,
}

impl Member {
    pub fn join(addr: SocketAddr, channel: &str, endpoint: &str) -> Self {
        let mut client = Client::connect(addr);
        let data = client.join_with(json!({
            "app": "test", "channel": channel, "endpoint": endpoint, "last_event": 0,
        }));
        let joined = data["last_event"].as_u64().unwrap();
        Self {
            addr,
            channel: channel.to_owned(),
            endpoint: endpoint.to_owned(),
            session: client.session.clone(),
            client: Some(client),
            joined,
            last_event: joined,
            log: Vec::new(),
        }
    }

    /// Its connection.
    pub fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("it is connected")
    }

    /// What a join says that would go on with the session.
    pub fn resume_request(&self) -> Value {
        json!({
            "app": "test",
            "channel": self.channel,
            "endpoint": self.endpoint,
            "last_event": self.last_event,
        })
    }

    /// Connects anew and asks to go on; the answer's `data`. It must come before anything else.
    /// The old connection is dropped only then.
    pub fn try_resume(&mut self) -> Value {
        self.join_again(Client::connect(self.addr))
    }

    fn join_again(&mut self, mut client: Client) -> Value {
        client.session.clone_from(&self.session);
        let cseq = client.ask("channel.join", self.resume_request());
        let answer = client.answer(cseq);
        assert_eq!(answer["err"], 0, "{answer}");
        client.session = answer["data"]["session"].as_str().unwrap().to_owned();
        self.session.clone_from(&client.session);
        self.client = Some(client);
        answer["data"].clone()
    }

    /// The same, and it must be granted.
    pub fn resume(&mut self) -> Value {
        self.resume_over(Client::connect(self.addr))
    }

    /// The same over this connection.
    pub fn resume_over(&mut self, client: Client) -> Value {
        let session = self.session.clone();
        let data = self.join_again(client);
        assert_eq!(data["resumed"], true, "{} {data}", self.endpoint);
        assert_eq!(data["session"], session.as_str());
        assert_eq!(data["endpoint"], self.endpoint.as_str());
        data
    }

    /// Cuts its connection; what has come and was not read is lost.
    pub fn cut(&mut self) {
        self.take_client().reset();
    }

    /// Its connection, which is its no more: to end it in some other way.
    pub fn take_client(&mut self) -> Client {
        self.client.take().expect("it is connected")
    }

    /// Writes down an event.
    pub fn note(&mut self, mut event: Value) -> &Value {
        assert_eq!(event["session"], self.session.as_str(), "{event}");
        let number = event["cseq"].as_u64().unwrap();
        assert!(
            number > self.last_event,
            "{} knows {} and is sent {event}",
            self.endpoint,
            self.last_event
        );
        self.last_event = number;
        let keys = event.as_object_mut().unwrap();
        keys.remove("session");
        keys.remove("cseq");
        self.log.push((number, event));
        &self.log[self.log.len() - 1].1
    }

    /// The next event, noted.
    pub fn event(&mut self) -> &Value {
        let event = self.client().next();
        assert!(event.get("event").is_some(), "an event was due: {event}");
        self.note(event)
    }

    /// Asks, and notes every event that comes before the answer.
    pub fn call(&mut self, method: &str, data: Value) -> Value {
        let cseq = self.client().ask(method, data);
        loop {
            let message = self.client().next();
            if message.get("err").is_some() {
                assert_eq!(message["cseq"], cseq, "{message}");
                return message;
            }
            self.note(message);
        }
    }

    /// The same, and it must be granted; the answer's `data`.
    pub fn ok(&mut self, method: &str, data: Value) -> Value {
        let answer = self.call(method, data);
        assert_eq!(answer["err"], 0, "{answer}");
        answer["data"].clone()
    }

    /// Who is in the room. Every event from before is noted.
    pub fn names(&mut self) -> Vec<String> {
        let data = self.ok("channel.dump", json!({}));
        let rows = data["endpoint_list"].as_array().unwrap();
        let name = |row: &Value| row["endpoint"].as_str().unwrap().to_owned();
        rows.iter().map(name).collect()
    }

    pub fn broadcast(&mut self, text: &str) {
        self.ok("broadcast", json!({"text": text}));
    }

    /// Reads until its connection ends; the error event that came before the close frame, and the
    /// frame's code.
    pub fn read_to_the_end(&mut self) -> (Option<String>, Option<u16>) {
        let (mut error, mut code) = (None, None);
        loop {
            match self.client().receive() {
                Received::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["event"] == "error" {
                        error = message["data"]["type"].as_str().map(str::to_owned);
                    } else if message.get("event").is_some() {
                        self.note(message);
                    }
                }
                Received::Close(close) => code = close.map(|(code, _)| code),
                Received::Ping(_) | Received::Pong(_) => {}
                Received::End | Received::Reset => return (error, code),
            }
        }
    }

    /// What its log says, in short: "join anna", "publish anna s1", "broadcast anna hello".
    pub fn story(&self) -> Vec<String> {
        self.log.iter().map(|(_, event)| short(event)).collect()
    }
}

/// What happened, in short.
pub fn short(event: &Value) -> String {
    let data = &event["data"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match event["event"].as_str() {
        Some("broadcast") => format!(
            "broadcast {} {}",
            text(&data["source_endpoint"]["endpoint"]),
            text(&data["payload"]["text"])
        ),
        Some("stream") => format!(
            "{} {} {}",
            text(&data["stat"]),
            text(&data["endpoint"]),
            text(&data["stream"])
        ),
        _ => format!("{} {}", text(&data["stat"]), text(&data["endpoint"])),
    }
}
