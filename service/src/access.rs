//! Capability tokens (biscuit): what their holders may do, where, until when; holders can weaken them, never strengthen.
//!
//! The authority block holds `room("…")` or `any_room()`, `user("…")`, `right("…")` for each right, and a check of the time.
//! A request is allowed if the token has the right and the room that it asks for, and every check of every block holds:
//! those look at `asked_right`, `asked_room` and `time`.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use biscuit_auth::builder::{AuthorizerBuilder, BiscuitBuilder, BlockBuilder, Term, date, fact, string};
use biscuit_auth::{Authorizer, AuthorizerLimits, Biscuit, KeyPair, PrivateKey};
use queue::{RoomName, UnixMs, UserName};
use serde::{Deserialize, Serialize};

use crate::limits::{TOKEN_BLOCKS_MAX, TOKEN_BYTES_MAX, TOKEN_CHECK_TIME_MAX, TOKEN_FACTS_MAX};

/// What a token may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// To see the room's queue and one's own jobs.
    Read,
    /// To submit and cancel one's own jobs.
    Submit,
    /// To have jobs done by the cloud, for money.
    Spend,
    /// To take the room's jobs and deliver their results.
    Work,
    /// Everything, everywhere.
    Operate,
}

impl Right {
    /// Every right.
    pub const ALL: [Self; 5] = [Self::Read, Self::Submit, Self::Spend, Self::Work, Self::Operate];

    /// As tokens, configuration and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Spend => "spend",
            Self::Work => "work",
            Self::Operate => "operate",
        }
    }
}

/// What a new token is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The room; `None` for every room.
    pub room: Option<RoomName>,
    /// Whoever holds it, for budgets and for whose jobs are whose.
    pub user: UserName,
    /// What it allows.
    pub rights: BTreeSet<Right>,
    /// When it ends.
    pub until: UnixMs,
}

/// A token is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this relay.
    #[error("this is no token of this relay; ask its operator or the room for one")]
    Forged,
    /// Its time is over.
    #[error("this token's time is over; ask for a new one")]
    Expired,
    /// It does not allow this.
    #[error("this token does not allow that")]
    NotAllowed,
}

/// Whose token allowed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Whose.
    pub user: UserName,
    /// What else it allows in the same room.
    pub rights: BTreeSet<Right>,
    /// The room it is bound to; `None` for every room.
    pub room: Option<RoomName>,
}

/// The relay's key: makes and checks tokens.
pub struct Mint {
    root: KeyPair,
}

impl Mint {
    /// From 32 random bytes that are kept.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self, TokenError> {
        let key = PrivateKey::from_bytes(secret, biscuit_auth::Algorithm::Ed25519).map_err(|_| TokenError::Forged)?;
        Ok(Self { root: KeyPair::from(&key) })
    }

    /// A token that says so.
    pub fn grant(&self, grant: &Grant) -> Result<String, TokenError> {
        let built = || -> Result<String, biscuit_auth::error::Token> {
            let mut builder = BiscuitBuilder::new();
            builder = match &grant.room {
                Some(room) => builder.fact(fact("room", &[string(room.as_str())]))?,
                None => builder.fact(fact("any_room", &[string("*")]))?,
            };
            builder = builder.fact(fact("user", &[string(grant.user.as_str())]))?;
            for right in &grant.rights {
                builder = builder.fact(fact("right", &[string(right.name())]))?;
            }
            builder = builder.code(until(grant.until))?;
            builder.build(&self.root)?.to_base64()
        };
        built().map_err(|_| TokenError::Forged)
    }

    /// Whether `token` allows `right` in `room` now.
    pub fn check(
        &self,
        token: &str,
        right: Right,
        room: Option<&RoomName>,
        now: UnixMs,
    ) -> Result<Allowed, TokenError> {
        let biscuit = self.read(token)?;
        let mut allowed =
            Allowed { user: user_of(&biscuit, now)?, rights: BTreeSet::new(), room: room_of(&biscuit, now)? };
        let holds = |right| authorize(&biscuit, right, room, now);
        // Whoever operates may do everything, unless a later holder has weakened the token.
        match holds(right) {
            Ok(()) => (),
            Err(TokenError::NotAllowed) => holds(Right::Operate)?,
            Err(error) => return Err(error),
        }
        allowed.rights = Right::ALL.into_iter().filter(|right| holds(*right).is_ok()).collect();
        Ok(allowed)
    }

    /// Whether it is a token of this relay at all, whose time is not over.
    pub fn read_only(&self, token: &str, now: UnixMs) -> Result<(), TokenError> {
        let biscuit = self.read(token)?;
        if is_over(&biscuit, now) { Err(TokenError::Expired) } else { Ok(()) }
    }

    /// The room that a token was made for; `None` for every room. Says nothing of what it allows there.
    pub fn room(&self, token: &str, now: UnixMs) -> Result<Option<RoomName>, TokenError> {
        room_of(&self.read(token)?, now)
    }

    /// The same token, for less: only these rights, only this room, only until then.
    pub fn weaken(
        token: &str,
        rights: Option<&BTreeSet<Right>>,
        room: Option<&RoomName>,
        end: Option<UnixMs>,
    ) -> Result<String, TokenError> {
        let weakened = || -> Result<String, biscuit_auth::error::Token> {
            let token = biscuit_auth::UnverifiedBiscuit::from_base64(token)?;
            let mut block = BlockBuilder::new();
            if let Some(rights) = rights {
                let names: Vec<_> = rights.iter().map(|right| format!("{:?}", right.name())).collect();
                block = block.code(format!("check if asked_right($r), [{}].contains($r)", names.join(", ")))?;
            }
            if let Some(room) = room {
                block = block.code(format!("check if asked_room({:?})", room.as_str()))?;
            }
            if let Some(end) = end {
                block = block.code(until(end))?;
            }
            token.append(block)?.to_base64()
        };
        weakened().map_err(|_| TokenError::Forged)
    }

    fn read(&self, token: &str) -> Result<Biscuit, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Forged);
        }
        let biscuit = Biscuit::from_base64(token, self.root.public()).map_err(|_| TokenError::Forged)?;
        let count = biscuit.block_count();
        let is_weakened = |index| biscuit.print_block_source(index).is_ok_and(|block| only_weakens(&block));
        if count > 1 + TOKEN_BLOCKS_MAX || !(1..count).all(is_weakened) {
            return Err(TokenError::Forged);
        }
        Ok(biscuit)
    }
}

/// Whether a holder's block says nothing but what [`Mint::weaken`] writes. Anybody may append rules to a token, and some would
/// take for ever to check.
fn only_weakens(block: &str) -> bool {
    let mut lines = block.lines().map(|line| line.trim().trim_end_matches(';')).filter(|line| !line.is_empty());
    lines.all(|line| {
        let Some(check) = line.strip_prefix("check if ") else { return false };
        if let Some(end) = check.strip_prefix("time($time), $time <= ") {
            return end.bytes().all(|byte| byte.is_ascii_digit() || b"-:TZ".contains(&byte));
        }
        if let Some(room) = check.strip_prefix("asked_room(\"").and_then(|rest| rest.strip_suffix("\")")) {
            return RoomName::new(room).is_ok();
        }
        let names = check.strip_prefix("asked_right($r), ").and_then(|rest| rest.strip_suffix(".contains($r)"));
        names.is_some_and(|names| names.bytes().all(|byte| byte.is_ascii_lowercase() || b"[{\", }]".contains(&byte)))
    })
}

fn until(end: UnixMs) -> String {
    let Term::Date(seconds) = date(&(SystemTime::UNIX_EPOCH + Duration::from_millis(end.0))) else {
        unreachable!("a date is a date")
    };
    format!("check if time($time), $time <= {}", Term::Date(seconds))
}

fn limits() -> AuthorizerLimits {
    AuthorizerLimits { max_facts: TOKEN_FACTS_MAX, max_iterations: 20, max_time: TOKEN_CHECK_TIME_MAX }
}

fn prepared(now: UnixMs) -> Result<AuthorizerBuilder, biscuit_auth::error::Token> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(now.0);
    AuthorizerBuilder::new().set_limits(limits()).fact(fact("time", &[date(&time)]))
}

fn authorize(biscuit: &Biscuit, right: Right, room: Option<&RoomName>, now: UnixMs) -> Result<(), TokenError> {
    let prepared = || -> Result<Authorizer, biscuit_auth::error::Token> {
        let mut builder = prepared(now)?.fact(fact("asked_right", &[string(right.name())]))?;
        builder = match room {
            Some(room) => builder
                .fact(fact("asked_room", &[string(room.as_str())]))?
                .code("allow if right($r), asked_right($r), room($room), asked_room($room)")?,
            None => builder,
        };
        builder.code("allow if right($r), asked_right($r), any_room($any)")?.build(biscuit)
    };
    let mut authorizer = prepared().map_err(|_| TokenError::NotAllowed)?;
    match authorizer.authorize() {
        Ok(_) => Ok(()),
        Err(_) if is_over(biscuit, now) => Err(TokenError::Expired),
        Err(_) => Err(TokenError::NotAllowed),
    }
}

/// Whether a check of the time fails at `now` that held when time began: the text of a failed check names it.
fn is_over(biscuit: &Biscuit, now: UnixMs) -> bool {
    let outcome = |now| -> Result<(), biscuit_auth::error::Token> {
        let mut builder = prepared(now)?;
        for right in Right::ALL {
            builder = builder.fact(fact("asked_right", &[string(right.name())]))?;
        }
        builder.code("allow if true")?.build(biscuit)?.authorize().map(|_| ())
    };
    outcome(now).is_err() && outcome(UnixMs(0)).is_ok()
}

fn facts(biscuit: &Biscuit, rule: &str, now: UnixMs) -> Result<Vec<String>, TokenError> {
    let asked = || -> Result<Vec<(String,)>, biscuit_auth::error::Token> {
        // Only the authority block's facts are believed: this query's scope is the default one.
        prepared(now)?.build(biscuit)?.query_with_limits(rule, limits())
    };
    Ok(asked().map_err(|_| TokenError::Forged)?.into_iter().map(|(text,)| text).collect())
}

fn user_of(biscuit: &Biscuit, now: UnixMs) -> Result<UserName, TokenError> {
    let users = facts(biscuit, "found($user) <- user($user)", now)?;
    let [user] = users.as_slice() else { return Err(TokenError::Forged) };
    UserName::new(user.as_str()).map_err(|_| TokenError::Forged)
}

fn room_of(biscuit: &Biscuit, now: UnixMs) -> Result<Option<RoomName>, TokenError> {
    let rooms = facts(biscuit, "found($room) <- room($room)", now)?;
    rooms.first().map(|room| RoomName::new(room.as_str()).map_err(|_| TokenError::Forged)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn mint(seed: u8) -> Mint {
        Mint::from_secret(&[seed; 32]).unwrap()
    }

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn grant(room_name: Option<&str>, rights: &[Right]) -> Grant {
        Grant {
            room: room_name.map(room),
            user: UserName::new("ada").unwrap(),
            rights: rights.iter().copied().collect(),
            until: NOW.after(Duration::from_secs(60)),
        }
    }

    #[test]
    fn a_token_allows_what_it_says_where_it_says_and_until_then() {
        let mint = mint(1);
        let token = mint.grant(&grant(Some("a"), &[Right::Read, Right::Submit])).unwrap();
        let check = |right, name: &str, now| mint.check(&token, right, Some(&room(name)), now);
        let allowed = check(Right::Submit, "a", NOW).unwrap();
        assert_eq!(allowed.user.as_str(), "ada");
        assert_eq!(allowed.rights, [Right::Read, Right::Submit].into());
        assert_eq!(allowed.room, Some(room("a")));
        assert_eq!(check(Right::Spend, "a", NOW), Err(TokenError::NotAllowed));
        assert_eq!(check(Right::Submit, "b", NOW), Err(TokenError::NotAllowed));
        assert_eq!(mint.check(&token, Right::Read, None, NOW), Err(TokenError::NotAllowed), "no room is every room");
        assert_eq!(check(Right::Submit, "a", NOW.after(Duration::from_secs(61))), Err(TokenError::Expired));
    }

    #[test]
    fn an_operators_token_allows_everything_everywhere() {
        let mint = mint(1);
        let token = mint.grant(&grant(None, &[Right::Operate])).unwrap();
        for right in Right::ALL {
            assert!(mint.check(&token, right, Some(&room("any")), NOW).is_ok());
            assert!(mint.check(&token, right, None, NOW).is_ok());
        }
    }

    #[test]
    fn another_relays_token_and_rubbish_are_forged() {
        let token = mint(2).grant(&grant(None, &[Right::Operate])).unwrap();
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        for text in [token.as_str(), "", "abc", "Bearer", &long] {
            assert_eq!(mint(1).check(text, Right::Read, None, NOW), Err(TokenError::Forged));
        }
    }

    #[test]
    fn a_holder_can_weaken_a_token_and_never_strengthen_it() {
        let mint = mint(1);
        let token = mint.grant(&grant(None, &[Right::Read, Right::Submit])).unwrap();
        let weak = Mint::weaken(&token, Some(&[Right::Read, Right::Operate].into()), Some(&room("a")), None).unwrap();
        assert!(mint.check(&weak, Right::Read, Some(&room("a")), NOW).is_ok());
        for (right, name) in [(Right::Submit, "a"), (Right::Operate, "a"), (Right::Read, "b")] {
            assert_eq!(mint.check(&weak, right, Some(&room(name)), NOW), Err(TokenError::NotAllowed));
        }
        let later = Mint::weaken(&token, None, None, Some(NOW.after(Duration::from_secs(1000)))).unwrap();
        assert_eq!(
            mint.check(&later, Right::Read, Some(&room("a")), NOW.after(Duration::from_secs(100))),
            Err(TokenError::Expired)
        );
        let sooner = Mint::weaken(&token, None, None, Some(NOW.after(Duration::from_secs(1)))).unwrap();
        assert_eq!(
            mint.check(&sooner, Right::Read, Some(&room("a")), NOW.after(Duration::from_secs(2))),
            Err(TokenError::Expired)
        );
    }

    #[test]
    fn a_block_that_does_more_than_weaken_makes_a_token_worthless() {
        let mint = mint(1);
        let token = mint.grant(&grant(Some("a"), &[Right::Read])).unwrap();
        let slow = "check if time($a), time($b), time($c), time($d), $a < $b, $b < $c, $c < $d";
        for code in [
            "right(\"operate\"); any_room(\"*\"); room(\"b\"); user(\"eve\")",
            "right($r) <- user($r)",
            "check if true or true",
            "check all time($time), $time <= 2100-01-01T00:00:00Z",
            "check if asked_room(\"a\"), asked_room(\"a\")",
            "check if asked_right($r), \"a\".matches($r)",
            slow,
        ] {
            let block = BlockBuilder::new().code(code).unwrap();
            let forged = biscuit_auth::UnverifiedBiscuit::from_base64(&token).unwrap().append(block).unwrap();
            let forged = forged.to_base64().unwrap();
            for (right, name) in [(Right::Operate, "a"), (Right::Read, "b"), (Right::Read, "a")] {
                assert_eq!(mint.check(&forged, right, Some(&room(name)), NOW), Err(TokenError::Forged), "{code}");
            }
        }
    }

    #[test]
    fn a_token_is_weakened_a_few_times_and_no_more() {
        let mint = mint(1);
        let mut token = mint.grant(&grant(None, &[Right::Read])).unwrap();
        for _ in 0..TOKEN_BLOCKS_MAX {
            token = Mint::weaken(&token, Some(&[Right::Read].into()), None, None).unwrap();
        }
        assert!(mint.check(&token, Right::Read, Some(&room("a")), NOW).is_ok());
        let more = Mint::weaken(&token, None, Some(&room("a")), None).unwrap();
        assert_eq!(mint.check(&more, Right::Read, Some(&room("a")), NOW), Err(TokenError::Forged));
    }
}
