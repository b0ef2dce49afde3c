#include "vision/io/segmentation/anatomy_codes.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>

namespace vireo {
namespace {

struct AnatomyEntry {
  std::string_view name;
  std::string_view value;
  std::string_view meaning;
};

// Anatomical structures by the names that data sets use.
constexpr AnatomyEntry kStructures[] = {
    {"adrenal gland", "23451007", "Adrenal gland"},
    {"amygdala", "4958002", "Amygdala"},
    {"aorta", "15825003", "Aorta"},
    {"artery", "51114001", "Artery"},
    {"atrium left", "82471001", "Left atrium"},
    {"atrium right", "73829009", "Right atrium"},
    {"bladder", "89837001", "Bladder"},
    {"blood vessel", "59820001", "Blood Vessel"},
    {"bone", "272673000", "Bone"},
    {"brain", "12738006", "Brain"},
    {"breast", "76752008", "Breast"},
    {"bronchus", "955009", "Bronchus"},
    {"caudate nucleus", "11000004", "Caudate Nucleus"},
    {"cell", "4421005", "Cell"},
    {"cell nucleus", "84640000", "Nucleus"},
    {"cerebellum", "113305005", "Cerebellum"},
    {"clavicle", "51299004", "Clavicle"},
    {"colon", "71854001", "Colon"},
    {"duodenum", "38848004", "Duodenum"},
    {"esophagus", "32849002", "Esophagus"},
    {"eye", "81745001", "Eye"},
    {"femur", "71341001", "Femur"},
    {"gallbladder", "28231008", "Gallbladder"},
    {"gb", "28231008", "Gallbladder"},
    {"gray matter", "389081007", "Gray Matter"},
    {"grey matter", "389081007", "Gray Matter"},
    {"heart", "80891009", "Heart"},
    {"hepatic vein", "8993003", "Hepatic vein"},
    {"hippocampus", "5366008", "Hippocampus"},
    {"inferior vena cava", "64131007", "Inferior vena cava"},
    {"kidney", "64033007", "Kidney"},
    {"la", "82471001", "Left atrium"},
    {"large intestine", "14742008", "Large intestine"},
    {"lateral ventricle", "66720007", "Lateral Ventricle"},
    {"liver", "10200004", "Liver"},
    {"lung", "39607008", "Lung"},
    {"lv", "87878005", "Left ventricle"},
    {"lymph node", "59441001", "Lymph Node"},
    {"mandible", "91609006", "Mandible"},
    {"muscle", "71616004", "Muscle"},
    {"myo", "74281007", "Myocardium"},
    {"myocardium", "74281007", "Myocardium"},
    {"nuclei", "84640000", "Nucleus"},
    {"nucleus", "84640000", "Nucleus"},
    {"oesophagus", "32849002", "Esophagus"},
    {"optic nerve", "18234004", "Optic nerve"},
    {"pancreas", "15776009", "Pancreas"},
    {"parotid gland", "45289007", "Parotid gland"},
    {"portal vein", "32764006", "Portal vein"},
    {"prostate", "41216001", "Prostate"},
    {"putamen", "89278009", "Putamen"},
    {"ra", "73829009", "Right atrium"},
    {"rectum", "34402009", "Rectum"},
    {"rib", "113197003", "Rib"},
    {"rv", "53085002", "Right ventricle"},
    {"scapula", "79601000", "Scapula"},
    {"skin", "39937001", "Skin"},
    {"small intestine", "30315005", "Small intestine"},
    {"spinal cord", "2748008", "Spinal cord"},
    {"spleen", "78961009", "Spleen"},
    {"splenic vein", "35819009", "Splenic vein"},
    {"sternum", "56873002", "Sternum"},
    {"stomach", "69695003", "Stomach"},
    {"superior vena cava", "48345005", "Superior vena cava"},
    {"thalamus", "42695009", "Thalamus"},
    {"thyroid", "69748006", "Thyroid"},
    {"thyroid gland", "69748006", "Thyroid"},
    {"trachea", "44567001", "Trachea"},
    {"urinary bladder", "89837001", "Bladder"},
    {"uterus", "35039007", "Uterus"},
    {"vein", "29092000", "Vein"},
    {"ventricle left", "87878005", "Left ventricle"},
    {"ventricle right", "53085002", "Right ventricle"},
    {"vertebra", "51282000", "Vertebra"},
    {"vertebrae", "51282000", "Vertebra"},
    {"vessel", "59820001", "Blood Vessel"},
    {"white matter", "389080008", "White Matter"},
};

constexpr AnatomyEntry kLesions[] = {
    {"cancer", "108369006", "Neoplasm"},
    {"cyst", "367643001", "Cyst"},
    {"edema", "79654002", "Edema"},
    {"hemorrhage", "50960005", "Hemorrhage"},
    {"lesion", "52988006", "Lesion"},
    {"mass", "4147007", "Mass"},
    {"necrosis", "6574001", "Necrosis"},
    {"neoplasm", "108369006", "Neoplasm"},
    {"nodule", "27925004", "Nodule"},
    {"oedema", "79654002", "Edema"},
    {"tumor", "108369006", "Neoplasm"},
    {"tumour", "108369006", "Neoplasm"},
};

CodedConcept snomed(std::string_view value, std::string_view meaning) {
  return {std::string(value), "SCT", std::string(meaning)};
}

// Lower-case words, "left" and "right" at the end.
std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words(1);
  for (const char c : name)
    if (std::isalpha(static_cast<unsigned char>(c)))
      words.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    else if (!words.back().empty())
      words.emplace_back();
  if (words.back().empty()) words.pop_back();
  std::stable_partition(words.begin(), words.end(), [](const std::string& word) {
    return word != "left" && word != "right";
  });
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

template <size_t N>
const AnatomyEntry* find_entry(const AnatomyEntry (&table)[N], std::string name) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto found = std::find_if(
        std::begin(table), std::end(table), [&](const auto& entry) { return entry.name == name; });
    if (found != std::end(table)) return found;
    if (!name.ends_with('s')) break;
    name.pop_back();
  }
  return nullptr;
}

}  // namespace

AnatomyCodes anatomy_codes(const std::string& name) {
  std::vector<std::string> words = words_of(name);
  CodedConcept side;
  const AnatomyEntry* structure = find_entry(kStructures, joined(words));
  if (structure == nullptr && !words.empty()) {
    if (words.back() == "left") side = snomed("7771000", "Left");
    if (words.back() == "right") side = snomed("24028007", "Right");
    if (!side.empty()) words.pop_back();
    structure = find_entry(kStructures, joined(words));
  }
  if (structure != nullptr)
    return {snomed("123037004", "Anatomical Structure"),
            snomed(structure->value, structure->meaning),
            side};
  if (const AnatomyEntry* lesion = find_entry(kLesions, joined(words)))
    return {snomed("49755003", "Morphologically Abnormal Structure"),
            snomed(lesion->value, lesion->meaning),
            side};
  return {snomed("85756007", "Tissue"), snomed("85756007", "Tissue"), {}};
}

}  // namespace vireo
