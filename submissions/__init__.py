"""The RSNA-STR competition: official metric, consistency rules and the submission file."""
