"""The words of the conformance statement in the order of PS3.2 annex A; `$names` stand for what the code says."""

from __future__ import annotations

STATEMENT = """\
# DICOM Conformance Statement

Pellucid $version. Research use; not for primary diagnosis. This document is printed by `pellucid conformance`, from
the code and the settings: print it again for your own.

## 1 Conformance statement overview

Pellucid receives images, classifies them, explains the result, and sends the explanation back into the same study. It
is no archive: it does not answer queries.

$overview

Query/Retrieve and, with DICOMweb, QIDO-RS and WADO-RS are also used by the Sender, for destinations whose objects are
confirmed by a query or read back (4.2.2.6, 4.2.2.7).

$web_services

No media services. No printing.

## 2 Table of contents

1 Overview · 3 Introduction · 4 Networking · 5 Media interchange · 6 Character sets · 7 Security · 8 Annexes

## 3 Introduction

For those who connect Pellucid with a PACS. It says what is negotiated and written; that two systems work together is
known only after a test. Terms are those of DICOM PS3.2. Further documents: `docs/objects.md` on the objects and why
they are so, `config/default.toml` on every setting.

## 4 Networking

### 4.1 Implementation model

#### 4.1.1 Application data flow

A remote AE stores images at the **Listener**. When an image, or its study, is complete, a worker analyses it without
any network. The **Sender** stores the resulting objects at the destinations of the pipeline. `pellucid fetch` (the
**Fetcher**) asks an archive for a study on demand.

#### 4.1.2 Functional definition of AEs

- **Listener** ($ae_title): Verification and Storage as SCP; takes N-EVENT-REPORT of Storage Commitment and N-CREATE
  of Instance Availability Notification; optionally STOW-RS as origin server.
- **Sender** ($sender_title): Verification and Storage as SCU; to confirm, Storage Commitment, or Query/Retrieve, Study
  Root, with C-FIND, C-MOVE to the Listener or C-GET, as SCU; or STOW-RS, QIDO-RS and WADO-RS as user agent.
- **Fetcher** ($sender_title): Query/Retrieve, Study Root, as SCU with C-MOVE to the Listener or C-GET; or QIDO-RS and
  WADO-RS as user agent.

#### 4.1.3 Sequencing

A study counts as complete after a quiet period in which no association that carried it is open, or as soon as
everything that an Instance Availability Notification names is here. An object counts as delivered with the success of
C-STORE, or, where the destination is set so, when it is committed, found by query, or read back unchanged.

### 4.2 AE specifications

#### 4.2.1 Listener

##### 4.2.1.1 SOP classes

Verification (1.2.840.10008.1.1) and the storage SOP classes of 4.2.1.4 as SCP, Storage Level 2 (full): every
attribute, private ones included, is kept as received, and nothing is coerced.

##### 4.2.1.2 Association policies

- Application context 1.2.840.10008.3.1.1.1. Maximum PDU $pdu bytes, announced and enforced.
- At most $associations associations at once, $associations_each from one address; a peer may have a limit of its own.
- No asynchronous operations: one at a time on each association.
- Implementation class UID $class_uid, version name $version_name.
- No association is initiated. A connection must have negotiated after $association_timeout s, and one that is silent
  for $network_timeout s is aborted.

##### 4.2.1.3 Association acceptance policy

The called AE title must be one that a pipeline serves; the calling AE title, its address and its certificate can be
bound. The title that results are sent under (`sender.ae_title`) takes what peers report, and answers a C-STORE with
0x0124. Rejections:

$rejections

##### 4.2.1.4 Presentation contexts accepted

Of what a peer proposes for one context, the first transfer syntax that is known is taken: what a peer names first is
what it has. Role selection is granted for Storage Commitment alone, where the reporting peer is the SCP.

$accepted_classes

Each with any of:

$accepted_syntaxes

Verification, Storage Commitment and Instance Availability Notification are accepted with the same transfer syntaxes.

Whatever is accepted is kept. Analysed are images of one frame with integer pixels, in the transfer syntaxes marked
above (JPEG Extended and JPEG Lossless as far as their decoder goes); of colour the luminance. Multi-frame images,
enhanced ones with several frames included, floating point pixels and the other transfer syntaxes are refused with the
reason, and so is what the model's card does not name: by Modality; by Body Part Examined, else Anatomic Region
Sequence; by View Position, else View Code Sequence; for frontal views by Patient Orientation, which must be L\\F where
it is stated. Images FOR PROCESSING (Presentation Intent Type) are left to their twins FOR PRESENTATION. The source's
overlays, shutters and presentation states are not applied.

##### 4.2.1.5 Statuses of C-STORE

$store_statuses

An instance above $largest MB is answered as out of resources. The same SOP Instance UID with other content is set
aside for an administrator; the first content stays.

##### 4.2.1.6 Storage Commitment and Instance Availability Notification

N-EVENT-REPORT (event types 1 and 2) closes the request that its Transaction UID names. N-CREATE of Instance
Availability Notification tells which instances a study consists of.

##### 4.2.1.7 STOW-RS

`POST /studies`, `POST /studies/{study}`, optionally below `/dicom-web` and `/aets/{AE title}`, with
`multipart/related; type="application/dicom"` and an answer in `application/dicom+json`; closed unless a port is set.
A bearer token can be asked for. The same rules as for C-STORE hold.

At most $web_connections connections are open at once, $web_each from one address. A request that sends less than
$web_pace bytes a second, for $web_slow s on average, is answered 408.

#### 4.2.2 Sender

##### 4.2.2.1 SOP classes

Verification, Storage and Storage Commitment (push model) as SCU. For destinations with `confirm = "query"` also Study
Root Query/Retrieve FIND, with `confirm = "retrieve"` further MOVE or GET, as SCU.

##### 4.2.2.2 Association policies

One association at a time for each destination, for as many objects as are due. Timeout of connecting, negotiating and
each answer: $sender_timeout s. After a failure the pause is $first_retry s, doubled with jitter up to $longest_retry
s, for ever. Implementation identity as in 4.2.1.2. No association is accepted, except that Storage Commitment reports
may come on the association that asked, within its lifetime.

##### 4.2.2.3 Presentation contexts proposed

Each pair of SOP class and transfer syntax is a context of its own, so that the peer answers for it; each SOP class
also gets one with uncompressed transfer syntaxes. An object that was made as JPEG is decompressed when only those are
taken.

$proposed

`pellucid send` proposes, in the same way, whatever SOP classes and transfer syntaxes its files have.

A query, C-MOVE or C-GET goes on an association of its own, with its SOP class in the uncompressed transfer syntaxes.
For C-GET the SOP class of the object is proposed too, with role selection as SCP, in the transfer syntax that it was
sent in and in the uncompressed ones.

##### 4.2.2.4 Statuses of C-STORE responses

$sender_statuses

##### 4.2.2.5 Storage Commitment

For destinations with `confirm = "commitment"`: N-ACTION (action type 1) for what was stored; the report may come on
the same association or to the Listener. A request without a report is repeated after $confirm_timeout s. Instances
that are not committed are stored again or, by the failure reason, set aside.

##### 4.2.2.6 STOW-RS and QIDO-RS

Destinations with a `url` get one instance per request. `confirm = "query"` asks QIDO-RS, or C-FIND at the IMAGE level
with the UIDs of study, series and instance, whether it is there.

##### 4.2.2.7 Reading back

For destinations with `confirm = "retrieve"`: after a query that finds it, each instance is retrieved at the IMAGE level
by C-MOVE to the Listener, by C-GET in the transfer syntax that it was sent in (or an uncompressed one), or by WADO-RS,
and compared attribute by attribute with what was sent. An instance that differs is rejected, and not sent again.

- Group lengths, padding, lengths of sequences, the encoding of text, and empty attributes that are left out are no
  differences, nor are $about_storing.
- What an archive may make fit its own records (PS3.4 section B.4.1.3) is named with the delivery, which stands:
  $reconciled.
- In another transfer syntax, unless both are uncompressed, Pixel Data, Photometric Interpretation and Planar
  Configuration are not compared, and the delivery says so.

#### 4.2.3 Fetcher

Study Root C-FIND at STUDY, SERIES and IMAGE level, C-MOVE with the Listener as destination, C-GET with role selection
for the storage SOP classes of the study; or QIDO-RS and WADO-RS for a study. Unique keys and Patient ID, Study Date
and Modalities in Study are used; no relational queries, no extended negotiation.

### 4.3 Network interfaces

TCP/IP, version 4 and 6, by the operating system. DICOM upper layer by PS3.8; DICOMweb over HTTP/1.1.

### 4.4 Configuration

Local and remote AE titles, addresses and ports are read from a TOML file and the environment at start. Of these
settings:

$settings

## 5 Media interchange

None. `pellucid explain` and `pellucid send` read Part 10 files and folders with a DICOMDIR; no media profile is
claimed.

## 6 Support of character sets

Everything is written as `ISO_IR 192` (UTF-8). Read are: $character_sets. A missing, unknown or impossible declaration
is replaced by UTF-8 if the text is valid UTF-8, else by `ISO_IR 100`; otherwise the source's declaration is believed.

## 7 Security

- TLS 1.2 and 1.3 by BCP 195 on a port of its own, with certificates on both sides (PS3.15 B.9 to B.13 as far as the
  suites below go). Suites of TLS 1.2: $suites. Peers can be bound to a certificate.
- DICOMweb over TLS towards destinations, with a bearer token, or user and password.
- Audit messages by PS3.15 A.5, kept and optionally forwarded by syslog over TLS (RFC 5425).
- No user identity negotiation, no digital signatures, no de-identification. Patient data is in no log.

## 8 Annexes

### 8.1 IOD contents

#### 8.1.1 Created SOP instances

$created

The base is the pipeline's setting `series_number` (9000 for films, as shipped), and a number of five digits drawn from
its name where its file has none; `pellucid doctor` warns of bases less than $apart apart. A refused study gets, where
the pipeline says so, a Basic Text SR in series base + 3. Other destinations may be sent other outputs. One series for
each study, pipeline, output and number, which later versions of a result continue. UIDs are UUID-derived (2.25) from
the job, so that a repeated job makes the same instances. All have Manufacturer "$manufacturer", Manufacturer's Model
Name "$model_name" and one Contributing Equipment item, (109102, DCM, "Processing Equipment"), which names the model.

#### 8.1.2 Attributes taken from the source

$copied

Private attributes are never copied, nor are institution, station and operators of the source. Referenced Request
Sequence and performed procedure steps are not written: Accession Number ties a result to its order. Also taken: Frame
of Reference UID and geometry (Segmentation, Parametric Map), orientation, laterality, body part and scaled pixel
spacing (Secondary Capture), modality transformation and window (presentation state).

#### 8.1.3 Content of Structured Reports

| template | where |
| --- | --- |
| TID 1500 Measurement Report | root of `structured-report`, with TID 1204, 1002, 1004, Procedure reported |
| TID 1600 Image Library | every source image, with those descriptors of TID 1602 and 1603 that the source gives |
| TID 1410 Planar ROI Measurements | a group for each region of a finding's default explanation, an SCOORD POLYLINE |
| TID 1501 Measurement Group | a finding below its operating point or without outline; a private SCOORD without extent |
| TID 4019 Algorithm Identification | at (111012, DCM, "Certainty of Finding"), else at the private probability |
| TID 2010 Key Object Selection | `key-objects`, title (113000, DCM, "Of Interest") |
| none | `text-report` and the note of a refusal: containers of TEXT items |

Further explanations are in the container "Qualitative Evaluations", each with the outline that it is inferred from.
Explanations are named by (130401, DCM, "Visual explanation") with CID 217, or by a private code where it has none.
SCOORD and presentation state coordinates count from the top-left corner of the first pixel.

### 8.2 Data dictionary of private attributes

None are written.

### 8.3 Coded terminology and templates

Scheme `$scheme`, UID $scheme_uid, declared by Coding Scheme Identification in every object that uses it. Explanation
methods without a code of DICOM's, and figures about explanations, add their registered names.

$concepts

### 8.4 Greyscale image consistency

Nothing is displayed; the presentation state carries P-values, with INVERSE for MONOCHROME1 sources.

### 8.5 Standard extended, specialized or private SOP classes

None are defined. Secondary Captures carry the optional Page Number Vector.

### 8.6 Private transfer syntaxes

None.
"""
