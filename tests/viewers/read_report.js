// Reads a report with dcmjs, as browsers' viewers do, and prints what it holds as JSON: read_report.js DCMJS FILE.
const fs = require('fs');
const [, , library, file] = process.argv;
const dcmjs = require(library);
dcmjs.log.setLevel('error');

const bytes = fs.readFileSync(file);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const message = dcmjs.data.DicomMessage.readFile(buffer);
const report = dcmjs.data.DicomMetaDictionary.naturalizeDataset(message.dict);
const list = value => (value === undefined ? [] : Array.isArray(value) ? value : [value]);

const found = { title: '', texts: [], numbers: [], codes: [], outlines: [], images: [] };
const walk = item => {
  const name = list(item.ConceptNameCodeSequence)[0]?.CodeMeaning ?? '';
  const measured = list(item.MeasuredValueSequence)[0];
  if (item.ValueType === 'TEXT') found.texts.push(item.TextValue);
  if (item.ValueType === 'NUM') found.numbers.push([name, Number(list(measured.NumericValue)[0])]);
  if (item.ValueType === 'CODE') found.codes.push(list(item.ConceptCodeSequence)[0].CodeMeaning);
  if (item.ValueType === 'SCOORD') found.outlines.push(list(item.GraphicData));
  if (item.ValueType === 'IMAGE') found.images.push(list(item.ReferencedSOPSequence)[0].ReferencedSOPInstanceUID);
  list(item.ContentSequence).forEach(walk);
};
found.title = list(report.ConceptNameCodeSequence)[0].CodeMeaning;
walk(report);
console.log(JSON.stringify(found));
