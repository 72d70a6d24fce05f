//! Which labels and fields name a subscriber, by the name of the field alone.
//!
//! Until pseudonyms exist such fields are dropped at the first hop, and counted. A name is compared word by word: it is cut at
//! `_`, `-`, `.`, `/`, `:`, blanks and changes from lower to upper case, and everything is lower-cased. An entry of the table is
//! one or more words; it matches where these words follow each other anywhere in the name, whether written apart or together
//! (`ue_id`, `UE-ID`, `ueId`, `ueid`), but never within a word: `ue_id` matches neither `queue_id` nor `value_id`. Digits at the
//! end of a word do not make it another: `imei` matches `imei1`, `ue_id` matches `ue_2_id`. An entry that starts with `=` matches
//! only the whole name: `=ue` leaves `mean_active_ue` alone.

use std::collections::HashSet;

/// What to do with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldClass {
    /// It may be stored.
    Keep,
    /// It names a subscriber or a subscriber's device: neither name nor value goes anywhere.
    Drop,
}

/// The table of fields that name a subscriber.
#[derive(Clone, Debug, Default)]
pub struct FieldClasses {
    // Entries with the separators taken out: `ueid`.
    dropped: HashSet<String, foldhash::fast::RandomState>,
    // The same for entries that must be the whole name.
    whole: HashSet<String, foldhash::fast::RandomState>,
    // Bytes of the longest in `dropped`: nothing longer can match.
    longest: usize,
}

impl FieldClasses {
    /// Adds one entry, such as `ue_id`. Returns false if it holds no word.
    pub(super) fn drop(&mut self, entry: &str) -> bool {
        let words = words(entry);
        let name = words.concat();
        if name.is_empty() {
            return false;
        }
        let without_digits: String = words.iter().map(|word| without_digits(word)).collect();
        let forms = [name, without_digits].into_iter().filter(|form| !form.is_empty());
        if entry.starts_with('=') {
            self.whole.extend(forms);
        } else {
            for form in forms {
                self.longest = self.longest.max(form.len());
                self.dropped.insert(form);
            }
        }
        true
    }

    /// The class of a field, by its name.
    pub fn class_of(&self, field: &str) -> FieldClass {
        let words = words(field);
        let bare: Vec<&str> = words.iter().map(|word| without_digits(word)).collect();
        if self.whole.contains(&words.concat()) || self.whole.contains(&bare.concat()) {
            return FieldClass::Drop;
        }
        for from in 0..words.len() {
            let (mut run, mut bare_run) = (String::with_capacity(field.len()), String::with_capacity(field.len()));
            for (word, bare) in words[from..].iter().zip(&bare[from..]) {
                run.push_str(word);
                bare_run.push_str(bare);
                if bare_run.len() > self.longest {
                    break;
                }
                if self.dropped.contains(&run) || self.dropped.contains(&bare_run) {
                    return FieldClass::Drop;
                }
            }
        }
        FieldClass::Keep
    }
}

/// A word without the digits at its end: `imei` of `imei2`, nothing of `2`.
fn without_digits(word: &str) -> &str {
    word.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// The words of a name, in lower case: `amfUE_NGAP-Id` gives amf, ue, ngap, id.
///
/// A run of capitals is one word; its last letter begins the next word if a lower-case letter follows (`UEId`: ue, id).
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut words = Vec::new();
    let mut word = String::new();
    for (at, &c) in chars.iter().enumerate() {
        if !c.is_alphanumeric() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        let before = at.checked_sub(1).map(|i| chars[i]);
        let after = chars.get(at + 1);
        let starts = c.is_uppercase()
            && before.is_some_and(|b| {
                b.is_lowercase() || b.is_numeric() || (b.is_uppercase() && after.is_some_and(|a| a.is_lowercase()))
            });
        if starts && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        word.extend(c.to_lowercase());
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn names_are_cut_in_words() {
        for (name, cut) in [
            ("amfUE_NGAP-Id", vec!["amf", "ue", "ngap", "id"]),
            ("UEId", vec!["ue", "id"]),
            ("ueIPAddress", vec!["ue", "ip", "address"]),
            ("C-RNTI", vec!["c", "rnti"]),
            ("queue", vec!["queue"]),
            ("5G-S-TMSI", vec!["5", "g", "s", "tmsi"]),
            ("__", vec![]),
        ] {
            let expected: Vec<String> = cut.into_iter().map(str::to_owned).collect();
            assert_eq!(words(name), expected, "{name}");
        }
    }

    /// Scenario: spellings of subscriber identities in the world's exporters, and words that only look like them.
    #[test]
    fn subscriber_identities_are_dropped_in_any_spelling() {
        let catalog = Catalog::builtin().unwrap();
        for field in [
            "imsi",
            "IMSI",
            "supi",
            "SUPI",
            "suci",
            "imei",
            "IMEISV",
            "imei_sv",
            "pei",
            "msisdn",
            "MSISDN",
            "gpsi",
            "5G-GUTI",
            "guti",
            "tmsi",
            "5g_s_tmsi",
            "fiveG-S-TMSI",
            "rnti",
            "RNTI",
            "c-rnti",
            "crnti",
            "C_RNTI",
            "tc-rnti",
            "amf_ue_ngap_id",
            "AMF-UE-NGAP-ID",
            "amfUeNgapId",
            "ran_ue_ngap_id",
            "RAN-UE-NGAP-ID",
            "ranUENGAPID",
            "ngap_id",
            "gnb_cu_ue_f1ap_id",
            "gNB-DU-UE-F1AP-ID",
            "f1ap.id",
            "ue_id",
            "ue-id",
            "UE-ID",
            "ueid",
            "UEID",
            "ueId",
            "ue.id",
            "ue",
            "UE",
            "cu_ue_id",
            "CU-UE-ID",
            "ue_ip",
            "ueIpAddress",
            "ue_ipv4",
            "ue_ipv6_address",
            "ue_mac",
            "UE-MAC-ADDR",
            "subscriber_id",
            "subscriberId",
            "subscriber.id",
            "phone_number",
            "user_imsi",
            "enduser.id",
            "enduser_id",
            "timing_advance",
            "ue_index",
            "amfuengapid",
            "gnbcuuef1apid",
            "client.address",
            "imei1",
            "IMEI2",
            "rnti0",
            "c-rnti-12",
            "pei0",
            "ue1_id",
            "ue_2_id",
            "ueId3",
            "ue3",
            "ue_ipv4_0",
            "ue1IPv6Address",
            "imsi_00",
        ] {
            assert_eq!(catalog.field_class(field), FieldClass::Drop, "{field}");
        }
        for field in [
            "queue",
            "value",
            "Queue_Id",
            "queue-id",
            "queueId",
            "valueId",
            "continue",
            "model_name",
            "UUID",
            "uuid",
            "gpu",
            "Hostname",
            "pod",
            "device",
            "issue",
            "pcie",
            "speed",
            "mac",
            "ip",
            "interface",
            "rnticount",
            "opein",
            "le",
            "quantile",
            "node",
            "instance",
            "cell",
            "mean_active_ue",
            "ue_count",
            "DRB.MeanActiveUeDl",
            "nr_cgi",
            "plmn",
            "user",
            "hw.id",
            "state",
            "finished_reason",
            "GPU_I_ID",
            "request_id_queue",
            "unique_id",
            "load1",
            "queue2_id",
            "rx_bytes_1",
            "2",
            "gpu0",
            "imeicount1",
        ] {
            assert_eq!(catalog.field_class(field), FieldClass::Keep, "{field}");
        }
    }

    /// No column, entity column or mapped label of our own catalog may be dropped.
    #[test]
    fn the_catalogs_own_names_are_kept() {
        let catalog = Catalog::builtin().unwrap();
        for stream in catalog.streams() {
            for field in stream.schema().fields() {
                assert_eq!(catalog.field_class(field.name()), FieldClass::Keep, "{}.{}", stream.name, field.name());
            }
        }
        for source in catalog.sources() {
            let entity = source.entity.iter().flat_map(|entity| &entity.labels);
            for label in entity.chain(&source.node).chain(source.columns.iter().map(|(label, _)| label)) {
                assert_eq!(catalog.field_class(label), FieldClass::Keep, "{label}");
            }
        }
    }
}
