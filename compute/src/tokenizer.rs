//! Turns a prompt into token ids as CLIP's tokenizer does, and says what a too long prompt would lose.

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::files::Files;
use crate::weights::LoadError;

/// How CLIP splits text into words, with its two special tokens (transformers' CLIPTokenizer).
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The first line of every merges file says only this and a version.
const MERGES_HEADER: &str = "#version";

const WHOLE: &str = "tokenizer.json";
const MERGES: &str = "merges.txt";
const VOCABULARY: &str = "vocab.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// A tokenizer with its padding and its limit.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pad: u32,
    tokens: usize,
}

/// Why a prompt has no token ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// More tokens than the model reads.
    #[error(
        "the prompt is too long for this model, which reads {limit} tokens; it would lose \"{excess}\"; shorten it"
    )]
    TooLong {
        /// Tokens the model reads, the two special ones included.
        limit: usize,
        /// The end of the prompt that does not fit.
        excess: String,
    },
    /// The tokenizer has no token for a part of it.
    #[error("the prompt cannot be tokenized: {0}")]
    Unknown(String),
}

impl Tokenizer {
    /// Reads the component `tokenizer` from its files: `tokenizer.json`, or `vocab.json` and `merges.txt`. `tokens_max` is what
    /// the text encoder can read.
    pub fn open(files: &Files, tokens_max: usize) -> Result<Self, LoadError> {
        let special = SpecialTokens::read(files)?;
        let name = source(files);
        let definition = match name {
            MERGES => assemble(files, &special)?.to_string(),
            name => files.read_text(name)?,
        };
        let malformed = |reason: String| LoadError::malformed(&files.path(name), reason);
        let mut inner = tokenizers::Tokenizer::from_bytes(definition.as_bytes())
            .map_err(|error| malformed(format!("not a tokenizer: {error}")))?;
        inner.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        inner.with_padding(None);
        let pad = inner
            .token_to_id(&special.pad)
            .ok_or_else(|| malformed(format!("the padding token {:?} is not in the vocabulary", special.pad)))?;
        let tokens = special.length_max.map_or(tokens_max, |length| length.min(tokens_max));
        if tokens < 3 {
            return Err(malformed(format!("a limit of {tokens} tokens leaves no room for text")));
        }
        Ok(Self { inner, pad, tokens })
    }

    /// The files that decide the ids, of those that are there.
    pub fn names(files: &Files) -> Vec<&'static str> {
        let name = source(files);
        let vocabulary = (name == MERGES).then_some(VOCABULARY);
        let optional = [CONFIG, SPECIAL_TOKENS].into_iter().filter(|name| files.has(name));
        vocabulary.into_iter().chain([name]).chain(optional).collect()
    }

    /// Tokens of every prompt, padding included.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Exactly [`Tokenizer::tokens`] ids: start, text, end, padding.
    pub fn ids(&self, prompt: &str) -> Result<Vec<u32>, PromptError> {
        let encoding = self.inner.encode(prompt, true).map_err(|error| PromptError::Unknown(error.to_string()))?;
        let mut ids = encoding.get_ids().to_vec();
        if ids.len() > self.tokens {
            // Start, the first `tokens - 2` of the text, and end are what would be kept.
            let (first_lost, _) = encoding.get_offsets()[self.tokens - 1];
            let cut = (0..=first_lost).rev().find(|&at| prompt.is_char_boundary(at)).unwrap_or_default();
            return Err(PromptError::TooLong { limit: self.tokens, excess: prompt[cut..].trim().to_owned() });
        }
        ids.resize(self.tokens, self.pad);
        Ok(ids)
    }

    /// The end of `prompt` that the model would not read, if there is one.
    pub fn excess(&self, prompt: &str) -> Option<String> {
        match self.ids(prompt) {
            Err(PromptError::TooLong { excess, .. }) => Some(excess),
            Err(PromptError::Unknown(_)) | Ok(_) => None,
        }
    }
}

/// `tokenizer.json`, else `merges.txt`, beside which `vocab.json` is read.
fn source(files: &Files) -> &'static str {
    if !files.has(WHOLE) && files.has(MERGES) { MERGES } else { WHOLE }
}

struct SpecialTokens {
    unknown: String,
    pad: String,
    length_max: Option<usize>,
}

impl SpecialTokens {
    /// As transformers reads them: `special_tokens_map.json` goes before `tokenizer_config.json`, unless the latter is
    /// new enough to have an `added_tokens_decoder`.
    fn read(files: &Files) -> Result<Self, LoadError> {
        let config = if files.has(CONFIG) { Some(Config::open(files, CONFIG)?) } else { None };
        let value = |key: &str| config.as_ref().and_then(|config| config.value(key));
        let legacy = value("added_tokens_decoder").is_none() && files.has(SPECIAL_TOKENS);
        let map = if legacy { files.read_json(SPECIAL_TOKENS)? } else { Map::new() };
        // A token is its text, or an object that also says how it is stripped.
        let text = |value: &Value| value.get("content").unwrap_or(value).as_str().map(str::to_owned);
        let token = |key: &str| map.get(key).or_else(|| value(key)).and_then(text).unwrap_or_else(|| END.to_owned());
        // Unlimited is written as 1e30, which is no count.
        let length_max = value("model_max_length").and_then(Value::as_u64).map(|length| length as usize);
        Ok(Self { unknown: token("unk_token"), pad: token("pad_token"), length_max })
    }
}

/// The `tokenizer.json` that CLIP's vocabulary and merges stand for.
fn assemble(files: &Files, special: &SpecialTokens) -> Result<Value, LoadError> {
    let path = files.path(VOCABULARY);
    let vocabulary = files.read_json(VOCABULARY)?;
    let merges = files.read_text(MERGES)?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(MERGES_HEADER)).collect();
    let id = |token: &str| {
        let missing = || LoadError::malformed(&path, format!("the special token {token:?} is not in the vocabulary"));
        vocabulary.get(token).and_then(Value::as_u64).ok_or_else(missing)
    };
    let (start, end) = (id(START)?, id(END)?);
    let mut names = vec![START, END, &special.unknown, &special.pad];
    names.sort_unstable();
    names.dedup();
    let mut added = Vec::new();
    for name in names {
        added.push(json!({
            "id": id(name)?, "content": name, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        }));
    }
    added.sort_by_key(|token| token["id"].as_u64());
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": WORDS }, "behavior": "Removed", "invert": true },
            byte_level,
        ] },
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, end], "cls": [START, start],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE", "unk_token": special.unknown, "end_of_word_suffix": "</w>",
            "continuing_subword_prefix": "", "fuse_unk": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}
