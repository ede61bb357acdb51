//! Questions and answers on the wire (RFC 1035 section 4). Whatever does not belong to the question is ignored.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::{Family, Found};

/// More links of a chain of aliases are not followed.
const MAX_ALIASES: usize = 16;

/// One question: a name and a family.
#[derive(Clone, Debug)]
pub(super) struct Question {
    name: Name,
    family: Family,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The addresses; none if the name does not exist, or has none of the family.
    Found(Vec<Found>),
    /// It cannot or does not want to tell: another server may.
    Refused,
    /// It knows no EDNS, or says so (RFC 6891 section 7).
    Malformed,
    /// There is more than fits: to be asked again over TCP (RFC 1035 section 4.2.1).
    Truncated,
}

impl Question {
    /// `None`: `name` is none.
    pub(super) fn new(name: &str, family: Family) -> Option<Self> {
        let mut name = Name::from_str(name).ok()?;
        name.set_fqdn(true);
        Some(Self { name, family })
    }

    /// The message that asks it. `max_payload`: `None` for servers that know no EDNS.
    pub(super) fn encode(&self, id: u16, max_payload: Option<u16>) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query());
        if let Some(max_payload) = max_payload {
            let mut edns = Edns::new();
            edns.set_max_payload(max_payload);
            message.set_edns(edns);
        }
        message.to_vec().ok()
    }

    /// What `bytes` answer; `None` if they are no answer to this question asked as `id`, and so perhaps forged
    /// (RFC 5452 section 9.1).
    pub(super) fn read(&self, id: u16, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_vec(bytes).ok()?;
        let is_response = message.metadata.message_type == MessageType::Response;
        if message.metadata.id != id || !is_response {
            return None;
        }
        let code = message.metadata.response_code;
        let echoed = matches!(message.queries.as_slice(), [query] if self.is(query));
        // Servers that did not understand the question may leave it out.
        let left_out = message.queries.is_empty() && code == ResponseCode::FormErr;
        if !echoed && !left_out {
            return None;
        }
        Some(match code {
            _ if message.metadata.truncation => Reply::Truncated,
            ResponseCode::NoError => Reply::Found(self.addresses(&message)),
            ResponseCode::NXDomain => Reply::Found(Vec::new()),
            ResponseCode::FormErr => Reply::Malformed,
            _ => Reply::Refused,
        })
    }

    fn query(&self) -> Query {
        let record_type = match self.family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        Query::query(self.name.clone(), record_type)
    }

    fn is(&self, query: &Query) -> bool {
        let own = self.query();
        query.query_type() == own.query_type()
            && query.query_class() == DNSClass::IN
            // Names are equal whatever their case is (RFC 4343).
            && query.name() == own.name()
    }

    /// Those of the name and its aliases. An alias that may be used for a shorter time shortens theirs.
    fn addresses(&self, message: &Message) -> Vec<Found> {
        let (mut name, mut ttl) = (&self.name, u32::MAX);
        for _ in 0..MAX_ALIASES {
            let alias = message.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(alias) if record.name == *name => Some((&alias.0, record.ttl)),
                _ => None,
            });
            let Some((target, of_alias)) = alias else { break };
            (name, ttl) = (target, ttl.min(of_alias));
        }
        let records = message.answers.iter().filter(|record| record.name == *name);
        let found = records.filter_map(|record| {
            let ip: IpAddr = match &record.data {
                RData::A(a) => a.0.into(),
                RData::AAAA(aaaa) => aaaa.0.into(),
                _ => return None,
            };
            let ttl = Duration::from_secs(u64::from(record.ttl.min(ttl)));
            (Family::of(&ip) == self.family).then_some(Found { ip, ttl })
        });
        found.collect()
    }
}
