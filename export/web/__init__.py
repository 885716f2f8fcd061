"""A page that scores recordings in the browser.

page             a bundle's model as a folder that any file server can give, or as one HTML file
one_file         the folder's files joined into one

page/            the page: HTML, CSS and JavaScript modules, as they are delivered
onnxruntime/     onnxruntime-web, as npm has it, with its licence
"""
