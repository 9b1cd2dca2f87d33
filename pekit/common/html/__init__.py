"""The look of every page: templates, one style sheet, one content-security policy.

render.py       fill a template; format a table

base.html       head, policy and style of all pages
page.html       title, lead, notes, sections (reports); index.html: the same for a review bundle
notebook.html   an executed notebook
table.html      a table
style.css       the style sheet
"""
