//! What the demo's shop has written down, and what its customers ask about it.
//!
//! Every document is one subject seen under one aspect; every question asks for one such pair, worded in one of a
//! few ways. All of it is made by rule, so that the corpus needs no file and is the same everywhere.

/// One section of the shop's knowledge: a namespace of the index.
#[derive(Debug)]
pub(super) struct Section {
    /// The namespace.
    pub(super) name: &'static str,
    /// What its documents are about.
    subjects: [&'static str; 12],
}

/// The four namespaces.
pub(super) const SECTIONS: [Section; 4] = [
    Section {
        name: "help",
        subjects: [
            "order tracking",
            "a forgotten password",
            "delivery abroad",
            "returning a parcel",
            "the invoice",
            "gift vouchers",
            "paying in instalments",
            "the customer account",
            "a damaged parcel",
            "changing the address",
            "click and collect",
            "the newsletter",
        ],
    },
    Section {
        name: "products",
        subjects: [
            "the city bike",
            "the cargo bike",
            "the folding bike",
            "the child seat",
            "the helmet",
            "the frame lock",
            "the pannier bags",
            "the floor pump",
            "the front light",
            "the leather saddle",
            "winter tyres",
            "the rain cape",
        ],
    },
    Section {
        name: "policies",
        subjects: [
            "the warranty",
            "theft insurance",
            "bike leasing",
            "battery recycling",
            "data protection",
            "the test ride",
            "student discounts",
            "price matching",
            "repair slots",
            "spare parts",
            "cancelling an order",
            "trade-in of used bikes",
        ],
    },
    Section {
        name: "news",
        subjects: [
            "opening hours",
            "the summer sale",
            "the new workshop",
            "the repair course",
            "a product recall",
            "winter storage",
            "the group ride",
            "delivery delays",
            "the loyalty card",
            "the new store",
            "the charging station",
            "the bike market",
        ],
    },
];

/// An aspect: its name in documents, what a document says of it, what a question calls it.
const ASPECTS: [(&str, &str, &str); 6] = [
    ("price", "The price and all fees are listed at checkout, VAT included.", "what does it cost"),
    ("duration", "It usually takes between two and five working days.", "how long does it take"),
    ("how to", "Open the page, follow the three steps and confirm by mail.", "how do I do that"),
    ("conditions", "It holds for private customers and needs a valid receipt.", "who is it for"),
    ("place", "You find it in every store and in the app under Services.", "where do I find it"),
    ("problems", "If anything goes wrong, our team calls you back the same day.", "it does not work"),
];

/// How the same question is worded.
const WORDINGS: [(&str, &str); 3] =
    [("About ", ": "), ("Hi! I have a question on ", ", "), ("Please tell me quickly, ", " - ")];

/// One document as it is written into the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// Its name within the namespace.
    pub(super) id: String,
    /// What is embedded and returned.
    pub(super) data: String,
}

impl Section {
    /// Every document of this section.
    pub(super) fn documents(&self) -> Vec<Text> {
        let pairs = self.subjects.iter().flat_map(|subject| ASPECTS.map(|aspect| (*subject, aspect)));
        pairs
            .enumerate()
            .map(|(at, (subject, (aspect, says, _)))| Text {
                id: format!("{}-{at:03}", self.name),
                data: format!("About {subject}, {aspect}. {says}"),
            })
            .collect()
    }

    /// Every question one can ask about this section.
    pub(super) fn questions(&self) -> Vec<String> {
        let pairs = self.subjects.iter().flat_map(|subject| ASPECTS.map(|aspect| (*subject, aspect)));
        pairs
            .flat_map(|(subject, (_, _, asks))| {
                WORDINGS.map(|(opening, link)| format!("{opening}{subject}{link}{asks}?"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn some_hundred_documents_and_no_question_twice() {
        let documents: Vec<Text> = SECTIONS.iter().flat_map(Section::documents).collect();
        assert_eq!(documents.len(), 288);
        let ids: HashSet<&str> = documents.iter().map(|text| text.id.as_str()).collect();
        assert_eq!(ids.len(), documents.len());
        for section in &SECTIONS {
            let questions = section.questions();
            assert_eq!(questions.len(), 216);
            assert_eq!(questions.iter().collect::<HashSet<_>>().len(), questions.len());
        }
    }
}
